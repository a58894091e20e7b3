#!/bin/sh
# passport-connect: what ssh runs for names that end in .passport. Installed by install.sh, from /passport setup.
#
# `prepare` runs before ssh loads keys (Match exec): it fetches a certificate of minutes for the person's own key.
# `tunnel` is ssh's ProxyCommand: it asks Passport for a started Session Manager session and hands that to AWS's
# session-manager-plugin. Each time the key signs a challenge of Passport's; there is no other secret.
#
# Nothing that the server says becomes configuration or a file's name unless it matches a pattern here.
set -u
LC_ALL=C
export LC_ALL
umask 077

url='@PUBLIC_URL@'
url=${url%/}
case $0 in # home: ~/.ssh/passport, by its full name
/*) home=${0%/*} ;;
*) home=$(CDPATH='' cd "$(dirname "$0")" && pwd) || exit 1 ;;
esac
hosts=$home/hosts
work=
lock=

# A desktop's editor starts ssh with a short PATH.
PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/opt/homebrew/bin:/usr/local/sessionmanagerplugin/bin
export PATH

main() {
    case ${1-} in
    prepare) prepare "${2-}" ;;
    tunnel) tunnel "${2-}" ;;
    rdp) rdp "${2-}" ;;
    status) show_status ;;
    uninstall) uninstall ;;
    -h | --help | help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
}

usage() {
    cat <<'END'
passport-connect rdp NAME    forward a local port to a Windows server, and say what to open
passport-connect status      what is installed, and which servers are prepared
passport-connect uninstall   take it all away again

From there on `ssh NAME.passport`, scp, sftp, rsync and editors work for every server that is open for you.
ssh itself calls: passport-connect prepare NAME.passport, passport-connect tunnel NAME.passport
END
}

# --- The four acts ---------------------------------------------------------------------------------------------------

prepare() {
    [ -z "${PASSPORT_SELF_TEST-}" ] || exit 0 # install.sh looks whether ssh reads its configuration
    name_host "$1"
    is_prepared 60 && exit 0
    need_plugin
    open_work
    take_turn
    is_prepared 60 && exit 0 # whoever had the turn before
    obtain certificate
    keep_certificate || {
        forget_host
        die "Passport's answer is not one I can use, so I wrote nothing. Tell your Passport admin."
    }
    forget_old
}

tunnel() {
    name_host "$1"
    # Where `prepare` failed it has said why; ssh asks for a tunnel all the same.
    is_prepared 0 || die "No connection to $host."
    open_work
    obtain tunnel
    if [ -n "$request" ] && [ "$request" != "$prepared_for" ]; then
        forget_host
        die "$host is open by another request now. Run the same command again."
    fi
    run_plugin
}

rdp() {
    name_host "$1"
    need_plugin
    open_work
    obtain rdp
    is_user "$user" || die_unusable
    message=$(clean "$message")
    [ -n "$message" ] || message="Your password is in Slack: press Show credentials."
    export_session || die_unusable
    close_work # nothing of the answer stays on the disk
    say "$message"
    session-manager-plugin AWS_SSM_START_SESSION_RESPONSE "$region" StartSession "" "$parameters" "$endpoint" </dev/null |
        while IFS= read -r line; do
            port=${line#Port }
            [ "$port" = "$line" ] || announce_rdp "${port%% *}"
        done
}

show_status() {
    printf 'Passport: %s\n' "$url"
    while read_key; do
        printf 'Key: %s\n' "$fingerprint"
    done <"$home/keys/list"
    if command -v session-manager-plugin >/dev/null 2>&1; then
        printf 'session-manager-plugin: %s\n' "$(command -v session-manager-plugin)"
    else
        printf 'session-manager-plugin: missing; see %s\n' "$plugin_page"
    fi
    now=$(date +%s)
    for file in "$hosts"/*.until; do
        [ -f "$file" ] || continue
        host=${file##*/}
        host=${host%.until}
        if is_prepared 0; then
            printf '%s.passport: %s, certificate for %s s more\n' "$host" "$prepared_for" "$((valid_before - now))"
        fi
    done
}

uninstall() {
    case $home in */.ssh/passport) ;; *) die "This is not where install.sh puts me: $home. Remove it by hand." ;; esac
    config=${home%/*}/config
    if [ -f "$config" ]; then
        open_work
        # In place, because the file may be a link into somebody's dotfiles.
        if ! { sed '/^[[:space:]]*Include[[:space:]]\{1,\}passport\/config[[:space:]]*$/d' "$config" >"$work/config" &&
            cat "$work/config" >"$config"; }; then
            die "I could not take my line out of $config."
        fi
        close_work
    fi
    own=${home%/.ssh/passport}/.local/bin/passport-connect
    if [ -f "$own" ] && grep -q "written by Passport" "$own"; then rm -f "$own"; fi
    rm -rf "$home"
    printf 'Passport is gone from this laptop. In Slack, /passport key remove forgets your key.\n'
}

# --- Words -----------------------------------------------------------------------------------------------------------

plugin_page='https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html'

say() { printf 'Passport: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

die_unusable() { die "Passport's answer is not one I can use. Tell your Passport admin."; }

need_plugin() {
    command -v session-manager-plugin >/dev/null 2>&1 ||
        die "AWS's session-manager-plugin is missing on this laptop. Install it: $plugin_page"
}

c1_lead=$(printf '\302') # with a byte of 200 to 237 after it: a control character of a terminal, in UTF-8
c1_first=$(printf '\200')
c1_last=$(printf '\237')

clean() { # somebody's sentence without what a terminal would obey
    printf '%s' "$1" | tr -d '\000-\037\177' | sed "s/${c1_lead}[${c1_first}-${c1_last}]//g" | cut -c 1-500
}

say_once() {
    [ "$1" = "$said" ] || say "$1"
    said=$1
}

# --- Patterns: the only way from the server's words into a file -------------------------------------------------------

is_made_of() { case $2 in '' | *[!$1]*) return 1 ;; esac } # is_made_of CHARACTERS TEXT

is_number() { is_made_of '0-9' "$1" && [ "${#1}" -le "$2" ]; } # is_number TEXT DIGITS

is_host() {
    case $1 in [!a-z0-9]*) return 1 ;; esac
    is_made_of 'a-z0-9._-' "$1" && [ "${#1}" -le 200 ]
}

is_user() {
    case $1 in pp-????*) is_made_of '0-9a-z' "${1#pp-}" && [ "${#1}" -le 11 ] ;; *) return 1 ;; esac
}

is_request() {
    case $1 in AR-????*) is_made_of '0-9A-Z' "${1#AR-}" && [ "${#1}" -le 11 ] ;; *) return 1 ;; esac
}

is_alias() {
    rest=${1#passport-}
    [ "$rest" != "$1" ] || return 1
    rest=${rest#m}
    case $rest in i-????????*) is_made_of '0-9a-f' "${rest#i-}" && [ "${#rest}" -le 19 ] ;; *) return 1 ;; esac
}

is_port() {
    case $1 in 0*) return 1 ;; esac
    is_number "$1" 5 && [ "$1" -le 65535 ]
}

is_host_key() {
    case ${1%% *} in
    ssh-ed25519 | ssh-rsa | ecdsa-sha2-nistp256 | ecdsa-sha2-nistp384 | ecdsa-sha2-nistp521) is_blob "${1#* }" ;;
    *) return 1 ;;
    esac
}

is_certificate() {
    case ${1%% *} in
    ssh-ed25519-cert-v01@openssh.com | ssh-rsa-cert-v01@openssh.com | sk-ssh-ed25519-cert-v01@openssh.com | \
        ecdsa-sha2-nistp256-cert-v01@openssh.com | ecdsa-sha2-nistp384-cert-v01@openssh.com | \
        ecdsa-sha2-nistp521-cert-v01@openssh.com | sk-ecdsa-sha2-nistp256-cert-v01@openssh.com) is_blob "${1#* }" ;;
    *) return 1 ;;
    esac
}

is_blob() { case $1 in AAAA*) is_made_of 'A-Za-z0-9+/=' "$1" && [ "${#1}" -le 16384 ] ;; *) return 1 ;; esac }

is_json() { # one line of it, as far as its edges show
    case $1 in *[!\ -~]*) return 1 ;; '{'*'}') [ "${#1}" -le 16384 ] ;; *) return 1 ;; esac
}

is_region() { case $1 in [a-z][a-z]-*-[0-9]*) is_made_of 'a-z0-9-' "$1" && [ "${#1}" -le 40 ] ;; *) return 1 ;; esac }

is_endpoint() {
    case $1 in
    https://*) is_made_of 'a-z0-9.:/-' "${1#https://}" && [ "${#1}" -le 200 ] ;;
    http://127.0.0.1:*) is_made_of '0-9/' "${1#http://127.0.0.1:}" ;;
    *) return 1 ;;
    esac
}

is_fingerprint() { case $1 in SHA256:*) is_made_of 'A-Za-z0-9+/' "${1#SHA256:}" && [ "${#1}" -eq 50 ] ;; *) return 1 ;; esac }

# --- Names and files --------------------------------------------------------------------------------------------------

name_host() { # name_host AS-TYPED: sets host
    case $1 in
    *[A-Z]*) host=$(printf '%s' "$1" | tr '[:upper:]' '[:lower:]') ;;
    *) host=$1 ;;
    esac
    host=${host%.passport}
    is_host "$host" || die "That is no name of a server. Say it like this: web-1.passport"
}

is_prepared() { # is_prepared SECONDS: whether the certificate lasts that long; sets valid_before and prepared_for
    valid_before=
    prepared_for=
    [ -f "$hosts/$host.until" ] && [ -f "$hosts/$host.conf" ] || return 1
    read -r valid_before prepared_for <"$hosts/$host.until" || return 1
    is_number "$valid_before" 11 && is_request "$prepared_for" || return 1
    [ "$valid_before" -gt $(($(date +%s) + $1)) ]
}

open_work() {
    trap 'close_work; give_turn' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    work=$(mktemp -d "$home/work.XXXXXXXX") || die "I cannot write in $home."
}

close_work() {
    [ -z "$work" ] || rm -rf "$work"
    work=
}

# One at a time asks about a host: an editor starts several ssh at once, and a security key wants one touch, not four.
# Whoever takes a turn that was not given back risks two certificates, nothing else: every write is atomic.
take_turn() {
    mine=$hosts/.$host.turn
    silent=0
    until mkdir "$mine" 2>/dev/null; do
        [ -d "$hosts" ] || die "$hosts is missing. Run the line of /passport setup again."
        holder=
        [ ! -f "$mine/holder" ] || read -r holder <"$mine/holder" || holder=
        if is_number "$holder" 10 && kill -0 "$holder" 2>/dev/null; then
            [ "$silent" -ne 10 ] || say "Another ssh is asking for $host already; I wait for it."
        elif [ "$silent" -ge 10 ]; then
            rm -rf "$mine"
        fi
        silent=$((silent + 1))
        sleep 0.2 2>/dev/null || sleep 1
    done
    lock=$mine
    echo "$$" >"$lock/holder"
}

give_turn() {
    [ -z "$lock" ] || rm -rf "$lock"
    lock=
}

read_key() { # the next line of keys/list: sets number, fingerprint
    read -r number fingerprint || return 1
    if ! is_number "$number" 2 || ! is_fingerprint "$fingerprint"; then
        die "$home/keys/list is damaged. Run the line of /passport setup again."
    fi
}

# --- Passport --------------------------------------------------------------------------------------------------------

obtain() { # obtain ACT: returns with the fields of an answer that is ready; else says why, and ends
    act=$1
    case $act in
    certificate) set -- certificate key host challenge signature ;;
    *) set -- tunnel key host act challenge signature ;;
    esac
    said=
    heard=
    failures=0
    proven_at=0
    while :; do
        now=$(date +%s)
        if [ $((now - proven_at)) -lt 540 ]; then # Passport's challenges last 600 seconds
            post "$@" || :
        elif prove; then
            proven_at=$now
            post "$@" || :
        fi
        case $status in
        ready) return 0 ;;
        wait | busy)
            heard=yes
            failures=0
            say_once "$(clean "${message:-Please wait.}")"
            pause "$retry_in"
            ;;
        refused)
            forget_host
            die "$(clean "${message:-You have no access to $host. Ask in Slack: /passport request $host for 1h because ...}")"
            ;;
        *)
            failures=$((failures + 1))
            [ -n "$heard" ] && [ "$failures" -le 12 ] || die "$trouble"
            say_once "$trouble I go on trying."
            pause 10
            ;;
        esac
    done
}

pause() { # pause SECONDS, between 1 and 60
    seconds=5
    if is_number "$1" 4; then seconds=$1; fi
    [ "$seconds" -ge 1 ] || seconds=1
    [ "$seconds" -le 60 ] || seconds=60
    sleep "$seconds"
    kill -0 "$PPID" 2>/dev/null || exit 1 # whoever wanted this is gone
}

prove() { # asks for a challenge and signs it with the first key that can; sets status where it fails
    refusal=
    while read_key <&3; do
        printf '%s' "$fingerprint" >"$work/key"
        post challenge key || return 1
        if [ "$status" != ok ] || ! is_made_of 'A-Za-z0-9._~=-' "$challenge" || [ "${#challenge}" -gt 1000 ]; then
            [ "$status" = busy ] || [ "$status" = refused ] || not_understood
            return 1
        fi
        printf '%s' "$challenge" >"$work/challenge"
        printf '%s' "$host" >"$work/host"
        printf '%s' "$act" >"$work/act"
        sign && return 0
    done 3<"$home/keys/list"
    status=
    heard= # asking again would not help
    trouble="None of your keys could sign: ${refusal:-no key is installed}. Load it (ssh-add), or run the line of /passport setup again."
    return 1
}

sign() {
    read -r kind blob <"$home/keys/$number.pub" || return 1
    case $kind in sk-*) say "Touch your security key: it proves to Passport that you are you." ;; esac
    printf 'passport-workstation-1\n%s\n%s\n%s\n%s\n' "$url" "$act" "$host" "$challenge" >"$work/statement"
    rm -f "$work/statement.sig"
    key=$home/keys/$number
    [ -f "$key" ] || key=$key.pub # its private half is in an agent
    use_agent
    # A passphrase is asked for on the terminal: standard input belongs to ssh.
    if ssh-keygen -Y sign -n workstation@passport -f "$key" "$work/statement" </dev/null >/dev/null 2>"$work/errors" &&
        [ -s "$work/statement.sig" ]; then
        mv -f "$work/statement.sig" "$work/signature"
        printf '%s %s' "$kind" "$blob" >"$work/key"
        return 0
    fi
    refusal=$(clean "$(tail -n 1 "$work/errors")")
    return 1
}

use_agent() { # the agent that ssh is configured to use, where it is not the environment's
    [ -f "$home/keys/agent" ] || return 0
    read -r SSH_AUTH_SOCK <"$home/keys/agent" || return 0
    export SSH_AUTH_SOCK
}

post() { # post PATH FIELDS: fields are files in the work folder. Sets status, or status='' and trouble
    status=
    path=$1
    shift
    for field in "$@"; do
        shift
        set -- "$@" --data-urlencode "$field@$field" # a path could hold what curl takes for a value
    done
    protocols='=https'
    case $url in http://*) protocols='=http' ;; esac # loopback only: Passport's settings see to that
    # -q: a ~/.curlrc could say "insecure". No redirects: this is the only address that is asked.
    code=$(cd "$work" && curl -q --silent --show-error --proto "$protocols" --max-redirs 0 --connect-timeout 10 --max-time 40 \
        --max-filesize 100000 --output answer --write-out '%{http_code}' "$@" "$url/workstation/$path" \
        </dev/null 2>"$work/errors") || {
        trouble="I cannot reach $url: $(clean "$(sed 's/^curl: ([0-9]*) //; 1q' "$work/errors")"). Are you online, or is a VPN missing?"
        return 1
    }
    read_answer
    case $status in
    ok | ready | wait | busy | refused) return 0 ;;
    esac
    not_understood
    return 1
}

not_understood() {
    status=
    trouble="$url did not answer as Passport does (HTTP $(clean "$code")). Try again in a minute; if it stays, tell your Passport admin."
}

read_answer() { # the fields of an answer, unchecked; the first line is the status
    status='' retry_in='' message='' challenge=''
    request='' user='' alias='' port='' valid_before='' certificate='' forwarding='' host_keys=''
    region='' response='' parameters='' endpoint=''
    IFS= read -r line <"$work/answer" || :
    case $line in status=*) ;; *) return 0 ;; esac
    while IFS= read -r line || [ -n "$line" ]; do
        value=${line#*=}
        case $line in
        status=*) [ -n "$status" ] || status=$value ;;
        retry_in=*) retry_in=$value ;;
        message=*) message=$value ;;
        challenge=*) challenge=$value ;;
        request=*) request=$value ;;
        user=*) user=$value ;;
        alias=*) alias=$value ;;
        port=*) port=$value ;;
        valid_before=*) valid_before=$value ;;
        certificate=*) certificate=$value ;;
        forwarding=*) forwarding=$value ;;
        host_key=*) host_keys="$host_keys$value
" ;;
        region=*) region=$value ;;
        response=*) response=$value ;;
        parameters=*) parameters=$value ;;
        endpoint=*) endpoint=$value ;;
        esac
    done <"$work/answer"
}

# --- What ssh reads ----------------------------------------------------------------------------------------------------

keep_certificate() { # writes this host's files; 1 when anything is not as it must be, and then nothing is written
    is_request "$request" && is_user "$user" && is_alias "$alias" && is_port "$port" || return 1
    is_certificate "$certificate" && is_number "$valid_before" 11 && [ -n "$host_keys" ] || return 1
    case $forwarding in yes | no) ;; *) return 1 ;; esac
    : >"$work/known_hosts"
    printf '%s' "$host_keys" | while IFS= read -r line; do
        is_host_key "$line" || exit 1
        printf '%s %s\n' "$alias" "$line"
    done >"$work/known_hosts" || return 1
    [ -s "$work/known_hosts" ] || return 1
    printf '%s\n' "$certificate" >"$work/certificate"
    printf '%s %s\n' "$valid_before" "$request" >"$work/until"
    identity=keys/$number
    [ -f "$home/$identity" ] || identity=$identity.pub
    {
        printf 'Match originalhost %s.passport\n' "$host"
        printf '    User %s\n    Port %s\n    HostKeyAlias %s\n' "$user" "$port" "$alias"
        printf '    IdentityFile ~/.ssh/passport/%s\n' "$identity"
        printf '    CertificateFile ~/.ssh/passport/hosts/%s.certificate\n' "$host"
        printf '    UserKnownHostsFile ~/.ssh/passport/hosts/%s.known_hosts\n' "$host"
        [ "$forwarding" = yes ] || printf '    ForwardAgent no\n    ForwardX11 no\n'
    } >"$work/conf"
    for part in known_hosts certificate conf until; do # the last one says that the others are there
        mv -f "$work/$part" "$hosts/$host.$part" || return 1
    done
}

forget_host() {
    rm -f "$hosts/$host.until" "$hosts/$host.conf" "$hosts/$host.certificate" "$hosts/$host.known_hosts"
}

forget_old() { # files of certificates that ran out an hour ago, and work that was killed
    now=$(date +%s)
    for file in "$hosts"/*.until; do
        [ -f "$file" ] || continue
        host=${file##*/}
        host=${host%.until}
        is_prepared -3600 || forget_host
    done
    find "$home" -maxdepth 1 -name 'work.*' -mtime +1 -exec rm -rf {} + 2>/dev/null || :
}

# --- AWS's plugin ------------------------------------------------------------------------------------------------------

export_session() { # by the environment, as AWS's own command line does: everybody can read an argv
    is_region "$region" && is_json "$response" && is_json "$parameters" && is_endpoint "$endpoint" || return 1
    AWS_SSM_START_SESSION_RESPONSE=$response
    # The plugin needs no credentials, but newer ones look for some first: not where a laptop waits for an answer.
    AWS_EC2_METADATA_DISABLED=true
    export AWS_SSM_START_SESSION_RESPONSE AWS_EC2_METADATA_DISABLED
}

run_plugin() {
    need_plugin
    export_session || die_unusable
    close_work # exec runs no trap
    exec session-manager-plugin AWS_SSM_START_SESSION_RESPONSE "$region" StartSession "" "$parameters" "$endpoint"
}

announce_rdp() { # announce_rdp PORT: the plugin listens there now
    is_port "$1" || return 0
    file=$hosts/$host.rdp
    {
        printf 'full address:s:127.0.0.1:%s\r\nusername:s:%s\r\n' "$1" "$user"
        printf 'prompt for credentials:i:1\r\ndrivestoredirect:s:\r\nredirectprinters:i:0\r\n'
    } >"$file.$$" && mv -f "$file.$$" "$file"
    say "Open this with your Remote Desktop program, as $user: 127.0.0.1:$1, or the file $file"
    say "For example: xfreerdp /v:127.0.0.1:$1 /u:$user. Leave this running: Ctrl-C ends the tunnel."
}

main "$@"
# end of passport-connect
