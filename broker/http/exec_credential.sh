# Prints an ExecCredential for kubectl: a token of the broker's, from a file of one's own while that is fresh.
# Arguments: the broker's URL, the client, the request's JSON. Needs sh and curl, nothing else.
set -eu
umask 077
export LC_ALL=C
url=$1 client=$2 request=$3

fail() {
    printf 'tokenbroker: %s\n' "$1" >&2
    exit 1
}

# The value of a text in JSON on one line; $1: its name.
field() {
    sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"
}

# Seconds since 1970 of a UTC time such as 2027-06-30T08:09:00Z: the options of date(1) differ from place to place.
epoch() {
    IFS=-T:Z read -r y m d hour minute second <<END
$1
END
    m=${m#0} d=${d#0} hour=${hour#0} minute=${minute#0} second=${second#0}
    [ "$m" -gt 2 ] || { y=$((y - 1)) m=$((m + 12)); }
    days=$((365 * y + y / 4 - y / 100 + y / 400 + (153 * (m - 3) + 2) / 5 + d - 719469))
    echo $((days * 86400 + hour * 3600 + minute * 60 + second))
}

# Whether a file or folder is ours alone; $1: how ls begins its line, $2: the path.
ours() {
    [ ! -L "$2" ] || return 1
    line=$(ls -ldn "$2" 2>/dev/null) || return 1
    case $line in "$1"*) ;; *) return 1 ;; esac
    # shellcheck disable=SC2086 # split into words on purpose: mode, links, owner
    set -- $line
    [ "$3" = "$(id -u)" ]
}

# How many seconds the kept token has left, 0 where there is none for this very request.
seconds_left() {
    [ -n "$cache" ] && ours -rw------- "$cache" || { echo 0; return; }
    { read -r kept_for && read -r kept; } <"$cache" || { echo 0; return; }
    [ "$kept_for" = "$url $client $request" ] || { echo 0; return; }
    until=$(printf '%s\n' "$kept" | field expirationTimestamp)
    case $until in
        [0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]Z)
            echo $(($(epoch "$until") - $(date +%s)))
            ;;
        *) echo 0 ;;
    esac
}

print_kept() {
    sed -n 2p "$cache"
}

# Secrets go to curl on its standard input: everybody can read the arguments of a program.
call() {
    curl --disable --silent --show-error --config - --connect-timeout 10 --max-time 30 --noproxy '*' \
        --proto =https,http --write-out '\n%{http_code}' "$@"
}

plain() {
    case $1 in *[!A-Za-z0-9._~+/=-]* | '') fail "$2 holds something else than a $3." ;; esac
}

# JWT of a GitHub Actions job, for the broker alone.
github_jwt() {
    plain "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" ACTIONS_ID_TOKEN_REQUEST_TOKEN token
    printf 'header = "Authorization: Bearer %s"\n' "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" |
        call --get --data-urlencode "audience=$url" "$ACTIONS_ID_TOKEN_REQUEST_URL" | field value
}

# curl's configuration with the proof that the environment has.
proof() {
    if [ -n "${TOKENBROKER_SECRET_FILE:-}" ]; then
        secret=$(cat "$TOKENBROKER_SECRET_FILE") || fail "the secret file cannot be read."
    else
        secret=${TOKENBROKER_SECRET:-}
    fi
    if [ -n "$secret" ]; then
        plain "$secret" "the environment's TOKENBROKER_SECRET or its file" secret
        printf 'user = "%s:%s"\n' "$client" "$secret"
        return
    fi
    if [ -n "${TOKENBROKER_JWT_FILE:-}" ]; then
        jwt=$(cat "$TOKENBROKER_JWT_FILE") || fail "the JWT file cannot be read."
    elif [ -n "${TOKENBROKER_JWT:-}" ]; then
        jwt=$TOKENBROKER_JWT
    elif [ -n "${ACTIONS_ID_TOKEN_REQUEST_URL:-}" ] && [ -n "${ACTIONS_ID_TOKEN_REQUEST_TOKEN:-}" ]; then
        jwt=$(github_jwt)
    else
        fail "set TOKENBROKER_SECRET_FILE or TOKENBROKER_JWT_FILE (or TOKENBROKER_SECRET, TOKENBROKER_JWT)."
    fi
    plain "$jwt" "the JWT's file or variable" JWT
    printf 'header = "Authorization: Bearer %s"\n' "$jwt"
}

fetch() {
    set -- --retry 2 --retry-max-time 20 --header 'Content-Type: application/json' --data-raw "$request"
    [ -z "${TOKENBROKER_CA_FILE:-}" ] || set -- "$@" --cacert "$TOKENBROKER_CA_FILE"
    configuration=$(proof) || exit 1
    answer=$(printf '%s\n' "$configuration" | call "$@" "$url/v1/tokens") || return 1
    status=${answer##*
}
    answer=${answer%?"$status"}
    if [ "$status" = 200 ]; then
        # curl prints the answers to attempts before the last one, too.
        start='{"apiVersion"'
        answer=$start${answer##*"$start"}
        return
    fi
    detail=$(printf '%s\n' "$answer" | field detail)
    printf 'tokenbroker: %s answered %s: %s\n' "$url" "$status" "${detail:-no explanation}" >&2
    case $status in 5??) return 1 ;; *) exit 1 ;; esac
}

keep() {
    [ -n "$cache" ] || return 0
    new=$(mktemp "$folder/new.XXXXXX") || return 0
    printf '%s\n' "$url $client $request" "$answer" >"$new" && mv -f "$new" "$cache" || rm -f "$new"
}

folder=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/tokenbroker
mkdir -p "$folder" 2>/dev/null || true
cache=
if ours drwx------ "$folder"; then
    cache=$folder/$(printf '%s\n' "$url $client $request" | cksum | tr ' ' -).json
fi

left=$(seconds_left)
if [ "$left" -gt 60 ]; then
    print_kept
elif fetch; then
    keep
    printf '%s\n' "$answer"
elif [ "$left" -gt 5 ]; then
    print_kept
else
    fail "there is no token: $url cannot serve at the moment."
fi
