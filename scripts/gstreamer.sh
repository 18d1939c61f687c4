#!/usr/bin/env bash
# Installs what the GStreamer elements and their tests need, and links the system's `gi` into a virtual environment.
# Never fails: it says what is missing, and the tests that need it are skipped. Quick and silent when all is there.
#
#   scripts/gstreamer.sh VENV
#   scripts/gstreamer.sh --missing   prints the packages that are missing, and does nothing
#
#   GI   the system's folder of the module gi (default: Debian's)
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
venv=$1
gi=${GI:-/usr/lib/python3/dist-packages/gi}
tried=$venv/.setup-gstreamer-tried # the packages that apt could not bring

say() { printf 'setup: %s\n' "$*" >&2; }

missing_packages() {
    local packages installed name
    packages=$(sed 's/#.*//' "$here/gstreamer_packages.txt")
    # shellcheck disable=SC2086  # a list of words; dpkg-query fails when it knows none of one of them
    installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $packages 2>/dev/null || true)
    for name in $packages; do
        [[ $'\n'$installed$'\n' == *$'\n'"installed $name"$'\n'* ]] || printf '%s ' "$name"
    done
}

tried_within_the_hour() {
    [ -n "$(find "$tried" -mmin -60 2>/dev/null)" ] && [ "$(cat "$tried")" = "$1" ]
}

install_packages() {
    local missing=$1 command="apt-get install --no-install-recommends $1"
    if [ "$(id -u)" -ne 0 ]; then
        say "GStreamer is incomplete, and installing it needs root: sudo $command"
    elif tried_within_the_hour "$missing"; then
        say "GStreamer is incomplete, and apt failed within the last hour: $command"
    else
        say "installing ${missing% } with apt"
        # shellcheck disable=SC2086  # a list of words
        if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            $missing >/dev/null; }; then
            say "apt failed, so GStreamer is incomplete; later: $command"
            printf '%s' "$missing" >"$tried"
        fi
    fi
}

# gi is compiled for one minor version of Python; of any build of that version, it can be imported.
link_gi() {
    local site tag
    for site in "$venv"/lib/python3*/site-packages; do
        [ -e "$site/gi/__init__.py" ] && return
    done
    "$venv/bin/python" -c 'import gi' 2>/dev/null && return
    if [ ! -e "$gi/__init__.py" ]; then
        say "no Python bindings of GStreamer ($gi); the tests that need them are skipped"
        return
    fi
    read -r tag site < <("$venv/bin/python" -c 'import sys, sysconfig
print("cpython-%d%d" % sys.version_info[:2], sysconfig.get_path("purelib"))')
    if ! compgen -G "$gi/_gi.$tag-*.so" >/dev/null; then
        say "the system's gi is compiled for another Python ($(cd "$gi" && echo _gi.*.so)) than $venv ($tag);" \
            "the tests that need GStreamer are skipped. To run them: rm -rf $venv && PYTHON=/usr/bin/python3 make test"
        return
    fi
    ln -sfn "$gi" "$site/gi"
    say "linked $gi into $venv"
}

if [ "$venv" = --missing ]; then
    missing_packages
    exit
fi
if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
    missing=$(missing_packages)
    [ -z "$missing" ] || install_packages "$missing"
else
    say "no apt here: what GStreamer needs is listed in scripts/gstreamer_packages.txt"
fi
link_gi
