#compdef storage-agent

autoload -U is-at-least

_storage-agent() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'-f+[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--config=[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--config-path=[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--log-level=[The least severe level that is logged\: CRITICAL, ERROR, WARNING, INFO, DEBUG, TRACE or NOTSET]:LEVEL:_default' \
'--lenient[Skip volumes whose backend is unknown instead of refusing the file]' \
'--debug[Log what is needed to find faults]' \
'--allow-root[Serve as root, which is otherwise refused]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_storage-agent_commands" \
"*::: :->storage-agent" \
&& ret=0
    case $state in
    (storage-agent)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:storage-agent-command-$line[1]:"
        case $line[1] in
            (check)
_arguments "${_arguments_options[@]}" : \
'-f+[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--config=[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--config-path=[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--lenient[Skip volumes whose backend is unknown instead of refusing the file]' \
'--online[Ask what is far away too, such as a storage array'\''s own service]' \
'--json[Print one JSON object instead of text]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(migrate-check)
_arguments "${_arguments_options[@]}" : \
'-f+[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--config=[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--config-path=[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--lenient[Skip volumes whose backend is unknown instead of refusing the file]' \
'--json[Print one JSON object instead of text]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(quota)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
":: :_storage-agent__subcmd__quota_commands" \
"*::: :->quota" \
&& ret=0

    case $state in
    (quota)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:storage-agent-quota-command-$line[1]:"
        case $line[1] in
            (audit)
_arguments "${_arguments_options[@]}" : \
'-f+[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--config=[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--config-path=[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--lenient[Skip volumes whose backend is unknown instead of refusing the file]' \
'--repair[Put right what can be put right]' \
'--deep[Look at each file, for those that left the project of their folder; takes as long as du(1)]' \
'--json[Print one JSON object instead of text]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_storage-agent__subcmd__quota__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:storage-agent-quota-help-command-$line[1]:"
        case $line[1] in
            (audit)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(top)
_arguments "${_arguments_options[@]}" : \
'-f+[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--config=[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--config-path=[The configuration file \[default\: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/\]]:FILE:_files' \
'--interval=[Seconds between two looks]:SECONDS:_default' \
'--lenient[Skip volumes whose backend is unknown instead of refusing the file]' \
'--once[Print it once and end, without clearing the screen]' \
'--json[Print the manager-facing API'\''s own reply, once]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(demo)
_arguments "${_arguments_options[@]}" : \
'--directory=[Where the throw-away volume is made]:DIRECTORY:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_storage-agent__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:storage-agent-help-command-$line[1]:"
        case $line[1] in
            (check)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(migrate-check)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(quota)
_arguments "${_arguments_options[@]}" : \
":: :_storage-agent__subcmd__help__subcmd__quota_commands" \
"*::: :->quota" \
&& ret=0

    case $state in
    (quota)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:storage-agent-help-quota-command-$line[1]:"
        case $line[1] in
            (audit)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(top)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(demo)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_storage-agent_commands] )) ||
_storage-agent_commands() {
    local commands; commands=(
'check:Check the configuration and everything it needs, and say what to do about what is wrong' \
'migrate-check:Say what will be different for a site that the reference proxy has served. Changes nothing' \
'quota:Look after the limits of quota scopes and folders' \
'top:Show what the running agent is doing\: volumes, transfers, tasks, the last errors' \
'demo:Serve a throw-away volume and print commands that try it out' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'storage-agent commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__check_commands] )) ||
_storage-agent__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent check commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__demo_commands] )) ||
_storage-agent__subcmd__demo_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent demo commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__help_commands] )) ||
_storage-agent__subcmd__help_commands() {
    local commands; commands=(
'check:Check the configuration and everything it needs, and say what to do about what is wrong' \
'migrate-check:Say what will be different for a site that the reference proxy has served. Changes nothing' \
'quota:Look after the limits of quota scopes and folders' \
'top:Show what the running agent is doing\: volumes, transfers, tasks, the last errors' \
'demo:Serve a throw-away volume and print commands that try it out' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'storage-agent help commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__help__subcmd__check_commands] )) ||
_storage-agent__subcmd__help__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent help check commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__help__subcmd__demo_commands] )) ||
_storage-agent__subcmd__help__subcmd__demo_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent help demo commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__help__subcmd__help_commands] )) ||
_storage-agent__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent help help commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__help__subcmd__migrate-check_commands] )) ||
_storage-agent__subcmd__help__subcmd__migrate-check_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent help migrate-check commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__help__subcmd__quota_commands] )) ||
_storage-agent__subcmd__help__subcmd__quota_commands() {
    local commands; commands=(
'audit:Find limits that do not hold\: directories outside their project, limits that differ, ids used twice' \
    )
    _describe -t commands 'storage-agent help quota commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__help__subcmd__quota__subcmd__audit_commands] )) ||
_storage-agent__subcmd__help__subcmd__quota__subcmd__audit_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent help quota audit commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__help__subcmd__top_commands] )) ||
_storage-agent__subcmd__help__subcmd__top_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent help top commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__migrate-check_commands] )) ||
_storage-agent__subcmd__migrate-check_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent migrate-check commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__quota_commands] )) ||
_storage-agent__subcmd__quota_commands() {
    local commands; commands=(
'audit:Find limits that do not hold\: directories outside their project, limits that differ, ids used twice' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'storage-agent quota commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__quota__subcmd__audit_commands] )) ||
_storage-agent__subcmd__quota__subcmd__audit_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent quota audit commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__quota__subcmd__help_commands] )) ||
_storage-agent__subcmd__quota__subcmd__help_commands() {
    local commands; commands=(
'audit:Find limits that do not hold\: directories outside their project, limits that differ, ids used twice' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'storage-agent quota help commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__quota__subcmd__help__subcmd__audit_commands] )) ||
_storage-agent__subcmd__quota__subcmd__help__subcmd__audit_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent quota help audit commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__quota__subcmd__help__subcmd__help_commands] )) ||
_storage-agent__subcmd__quota__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent quota help help commands' commands "$@"
}
(( $+functions[_storage-agent__subcmd__top_commands] )) ||
_storage-agent__subcmd__top_commands() {
    local commands; commands=()
    _describe -t commands 'storage-agent top commands' commands "$@"
}

if [ "$funcstack[1]" = "_storage-agent" ]; then
    _storage-agent "$@"
else
    compdef _storage-agent storage-agent
fi
