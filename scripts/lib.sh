# shellcheck shell=sh disable=SC2034
# What the scripts in this folder share; they source it, it is not run by itself.

root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
python=$root/.venv/bin/python

if [ -t 1 ] && [ -z "${NO_COLOR-}" ]; then
    bold=$(printf '\033[1m') red=$(printf '\033[31m') plain=$(printf '\033[0m')
else
    bold='' red='' plain=''
fi

say() {
    printf '%s\n' "$@"
}

die() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Do this on every way out: the end, an error, Ctrl-C, a closed pipe.
on_exit() {
    # shellcheck disable=SC2064
    trap "$1" EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 141' PIPE
    trap 'exit 143' TERM
}

# Become a program that sees none of the user's settings, proxies or Python variables.
exec_clean() {
    exec env -i LANG=C.UTF-8 LC_ALL=C.UTF-8 PATH="$PATH" ${HOME+"HOME=$HOME"} ${TERM+"TERM=$TERM"} \
        ${TMPDIR+"TMPDIR=$TMPDIR"} ${CI+"CI=$CI"} ${NO_COLOR+"NO_COLOR=$NO_COLOR"} "$@"
}

# The same, and come back.
clean() {
    (exec_clean "$@")
}
