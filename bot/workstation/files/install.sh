#!/bin/sh
# Sets a laptop up for Passport: the line of /passport setup runs this. No secret comes with it.
#
#   curl -fsSL https://passport.example.com/workstation/install.sh | sh -s -- SHA256:...
#
# It writes ~/.ssh/passport and one Include line at the top of ~/.ssh/config. Running it again brings all up to date.
set -u
LC_ALL=C
export LC_ALL
umask 077

url='@PUBLIC_URL@'
url=${url%/}

main() { # called by the last line, so that half a download does nothing
    [ "$#" -gt 0 ] || die "Name your key by its fingerprint. In Slack, /passport setup shows the whole line."
    for wanted in "$@"; do
        is_fingerprint "$wanted" || die "That is no fingerprint: it is like SHA256:... with 43 characters. /passport setup shows the line."
    done
    ssh=$HOME/.ssh
    home=$ssh/passport
    case $home in
    *["'"'"%$`!&|\*?[']* | *[[:cntrl:]]*) die "Your home folder's name has characters that ssh_config cannot hold: $HOME" ;;
    /*) ;;
    *) die "HOME is not set to your home folder." ;;
    esac
    need_programs
    mkdir -p "$ssh" "$home/hosts" "$home/keys" || die "I cannot write in $ssh."
    chmod 700 "$home" "$home/hosts" "$home/keys"
    work=$(mktemp -d "$home/work.XXXXXXXX") || die "I cannot write in $home."
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' HUP INT TERM
    find_keys "$@"
    fetch passport-connect.sh '# end of passport-connect'
    fetch ssh_config '# end of ssh_config'
    sh -n "$work/passport-connect.sh" || die "What I downloaded is not whole. Run this again."
    keep
    include
    command_on_path
    self_test
    command -v session-manager-plugin >/dev/null 2>&1 || [ -x /usr/local/sessionmanagerplugin/bin/session-manager-plugin ] ||
        say "One thing is missing: AWS's session-manager-plugin. Install it: $plugin_page"
    say "Ready. For a server that is open for you: ssh NAME.passport"
    say "For a Windows server: $short rdp NAME"
}

plugin_page='https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html'

say() { printf 'Passport: %s\n' "$*"; }

die() {
    printf 'Passport: %s\n' "$*" >&2
    exit 1
}

is_fingerprint() {
    case $1 in
    SHA256:*[!A-Za-z0-9+/:]*) return 1 ;;
    SHA256:*:*) return 1 ;;
    SHA256:*) [ "${#1}" -eq 50 ] ;;
    *) return 1 ;;
    esac
}

need_programs() {
    for program in ssh ssh-keygen curl mktemp; do
        command -v "$program" >/dev/null 2>&1 || die "$program is missing on this laptop. Install it, then run this again."
    done
    case $(ssh-keygen -Y sign 2>&1 </dev/null) in # with too few arguments: it says which, or that it knows no -Y
    *"option -- Y"* | *"option -- 'Y'"*) die "Your OpenSSH is too old: Passport needs 8.1 or later. You have $(ssh -V 2>&1)." ;;
    esac
}

# --- Keys: which of the registered ones are here --------------------------------------------------------------------

find_keys() {
    ssh -G passport-setup.invalid >"$work/options" 2>/dev/null || : # without .passport at its end: nothing is run
    use_agent
    : >"$work/list"
    number=0
    for wanted in "$@"; do
        look_in_files || look_in_agent || continue
        number=$((number + 1))
        printf '%s %s\n' "$number" "$wanted" >>"$work/list"
        say "Your key $wanted: $where"
        [ "$number" -lt 9 ] || break
    done
    [ "$number" -gt 0 ] || die "None of your registered keys is on this laptop: $*. Start your agent (ssh-add), or register a key of this laptop in Slack: /passport key add and the line in ~/.ssh/id_*.pub"
    rm -f "$home/keys"/*
    for file in "$work"/key.*; do
        mv -f "$file" "$home/keys/${file##*/key.}"
    done
    mv -f "$work/list" "$home/keys/list"
    [ ! -f "$work/agent" ] || mv -f "$work/agent" "$home/keys/agent"
}

use_agent() { # where ssh_config names an agent, as password managers ask for: that one
    agent=$(sed -n 's/^identityagent //p' "$work/options")
    # shellcheck disable=SC2088  # a tilde in a file's text
    case $agent in
    '~/'*) agent=$HOME/${agent#'~/'} ;;
    esac
    case $agent in
    /*)
        SSH_AUTH_SOCK=$agent
        export SSH_AUTH_SOCK
        printf '%s\n' "$agent" >"$work/agent"
        ;;
    esac
}

look_in_files() { # sets where, and writes key.N.pub, and the link key.N to the private half
    {
        for file in "$ssh"/*.pub; do printf '%s\n' "$file"; done
        sed -n 's/^identityfile //p' "$work/options" | while IFS= read -r file; do
            # shellcheck disable=SC2088
            case $file in '~/'*) file=$HOME/${file#'~/'} ;; esac
            printf '%s\n' "${file%.pub}.pub" "$file"
        done
    } >"$work/candidates"
    while IFS= read -r file; do
        [ -f "$file" ] || continue
        has_fingerprint "$file" || continue
        private=${file%.pub}
        [ -f "$private" ] || continue
        keep_public "$file" "$private" || continue
        ln -s "$private" "$work/key.$((number + 1))"
        where=$private
        return 0
    done <"$work/candidates"
    return 1
}

has_fingerprint() {
    ssh-keygen -l -E sha256 -f "$1" 2>/dev/null </dev/null | while read -r _ found _; do
        [ "$found" != "$wanted" ] || echo yes
    done | grep -q yes
}

keep_public() { # keep_public FILE PRIVATE: from a .pub, or out of the private key, which may ask for its passphrase
    case $1 in
    *.pub) read -r kind blob _ <"$1" || : ;;
    *) ssh-keygen -y -f "$2" >"$work/public" 2>/dev/null </dev/null && read -r kind blob _ <"$work/public" ;;
    esac
    write_public
}

look_in_agent() {
    ssh-add -L >"$work/agent-keys" 2>/dev/null || return 1
    while read -r kind blob _; do
        printf '%s %s\n' "$kind" "$blob" >"$work/public"
        has_fingerprint "$work/public" || continue
        write_public || continue
        where="in your agent"
        return 0
    done <"$work/agent-keys"
    return 1
}

write_public() {
    case $kind in '' | *[!a-z0-9@.-]*) return 1 ;; esac
    case $blob in '' | *[!A-Za-z0-9+/=]*) return 1 ;; esac
    printf '%s %s\n' "$kind" "$blob" >"$work/key.$((number + 1)).pub"
}

# --- Files -----------------------------------------------------------------------------------------------------------

fetch() { # fetch NAME LAST-LINE
    protocols='=https'
    case $url in http://*) protocols='=http' ;; esac # loopback only: Passport's settings see to that
    curl -q --fail --silent --show-error --proto "$protocols" --max-redirs 0 --connect-timeout 10 --max-time 60 \
        --output "$work/$1" "$url/workstation/$1" || die "I cannot download $url/workstation/$1. Try again in a minute."
    [ "$(tail -n 1 "$work/$1")" = "$2" ] || die "What I downloaded from $url is not whole. Run this again."
}

keep() {
    template=$(cat "$work/ssh_config")
    while IFS= read -r line; do
        case $line in
        *@CONNECT@*) printf '%s%s/passport-connect%s\n' "${line%%@CONNECT@*}" "$home" "${line#*@CONNECT@}" ;;
        *) printf '%s\n' "$line" ;;
        esac
    done >"$work/config" <<END
$template
END
    # Newer ssh can ask a program for host keys; none is asked here, whatever stands further down.
    if ssh -G -F /dev/null -o KnownHostsCommand=none passport-setup.invalid >/dev/null 2>&1; then
        printf '    KnownHostsCommand none\n' >>"$work/config"
    fi
    chmod 700 "$work/passport-connect.sh"
    move "$work/passport-connect.sh" "$home/passport-connect"
    move "$work/config" "$home/config"
}

include() { # our line comes first: of two values for one option, ssh takes the first
    config=$ssh/config
    line='Include passport/config'
    if [ ! -e "$config" ]; then
        printf '%s\n' "$line" >"$work/new"
        move "$work/new" "$config"
        return 0
    fi
    [ "$(grep -v '^[[:space:]]*\(#.*\)\{0,1\}$' "$config" | head -n 1)" != "$line" ] || return 0
    {
        printf '%s\n' "$line"
        grep -v '^[[:space:]]*Include[[:space:]]\{1,\}passport/config[[:space:]]*$' "$config"
    } >"$work/new"
    cp -p "$config" "$config.before-passport" || die "I cannot keep a copy of $config."
    if [ -L "$config" ]; then
        cat "$work/new" >"$config" || die "I cannot write $config; $config.before-passport is what it was."
        return 0
    fi
    cp -p "$config" "$work/config" || die "I cannot read $config." # its mode and owner
    cat "$work/new" >"$work/config" || die "I cannot write in $home."
    move "$work/config" "$config"
}

move() { mv -f "$1" "$2" || die "I cannot write $2."; }

command_on_path() { # a short name, where people's own programs are looked for already
    short=$home/passport-connect
    case :$PATH: in *":$HOME/.local/bin:"*) ;; *) return 0 ;; esac
    own=$HOME/.local/bin/passport-connect
    [ -d "$HOME/.local/bin" ] || return 0
    if [ -e "$own" ] && ! grep -q "written by Passport" "$own"; then return 0; fi
    # shellcheck disable=SC2016  # for the script that is written
    printf '#!/bin/sh\n# written by Passport\nexec "%s/passport-connect" "$@"\n' "$home" >"$own" &&
        chmod 755 "$own" && short=passport-connect
}

self_test() {
    PASSPORT_SELF_TEST=1 ssh -G setup.passport >"$work/options" 2>"$work/errors" ||
        die "ssh does not read its configuration: $(head -n 1 "$work/errors")"
    grep -q "^proxycommand '$home/passport-connect' tunnel" "$work/options" ||
        die "ssh does not read $ssh/config: is it another user's, or does an alias of ssh name another file?"
}

main "$@"
