# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_storage_agent_global_optspecs
    string join \n f/config= lenient debug log-level= allow-root h/help V/version
end

function __fish_storage_agent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_storage_agent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_storage_agent_using_subcommand
    set -l cmd (__fish_storage_agent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c storage-agent -n "__fish_storage_agent_needs_command" -s f -l config -l config-path -d 'The configuration file [default: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/]' -r -F
complete -c storage-agent -n "__fish_storage_agent_needs_command" -l log-level -d 'The least severe level that is logged: CRITICAL, ERROR, WARNING, INFO, DEBUG, TRACE or NOTSET' -r
complete -c storage-agent -n "__fish_storage_agent_needs_command" -l lenient -d 'Skip volumes whose backend is unknown instead of refusing the file'
complete -c storage-agent -n "__fish_storage_agent_needs_command" -l debug -d 'Log what is needed to find faults'
complete -c storage-agent -n "__fish_storage_agent_needs_command" -l allow-root -d 'Serve as root, which is otherwise refused'
complete -c storage-agent -n "__fish_storage_agent_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c storage-agent -n "__fish_storage_agent_needs_command" -s V -l version -d 'Print version'
complete -c storage-agent -n "__fish_storage_agent_needs_command" -f -a "check" -d 'Check the configuration and everything it needs, and say what to do about what is wrong'
complete -c storage-agent -n "__fish_storage_agent_needs_command" -f -a "migrate-check" -d 'Say what will be different for a site that the reference proxy has served. Changes nothing'
complete -c storage-agent -n "__fish_storage_agent_needs_command" -f -a "quota" -d 'Look after the limits of quota scopes and folders'
complete -c storage-agent -n "__fish_storage_agent_needs_command" -f -a "top" -d 'Show what the running agent is doing: volumes, transfers, tasks, the last errors'
complete -c storage-agent -n "__fish_storage_agent_needs_command" -f -a "demo" -d 'Serve a throw-away volume and print commands that try it out'
complete -c storage-agent -n "__fish_storage_agent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand check" -s f -l config -l config-path -d 'The configuration file [default: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/]' -r -F
complete -c storage-agent -n "__fish_storage_agent_using_subcommand check" -l lenient -d 'Skip volumes whose backend is unknown instead of refusing the file'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand check" -l online -d 'Ask what is far away too, such as a storage array\'s own service'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand check" -l json -d 'Print one JSON object instead of text'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand check" -s h -l help -d 'Print help'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand migrate-check" -s f -l config -l config-path -d 'The configuration file [default: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/]' -r -F
complete -c storage-agent -n "__fish_storage_agent_using_subcommand migrate-check" -l lenient -d 'Skip volumes whose backend is unknown instead of refusing the file'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand migrate-check" -l json -d 'Print one JSON object instead of text'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand migrate-check" -s h -l help -d 'Print help'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand quota; and not __fish_seen_subcommand_from audit help" -s h -l help -d 'Print help'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand quota; and not __fish_seen_subcommand_from audit help" -f -a "audit" -d 'Find limits that do not hold: directories outside their project, limits that differ, ids used twice'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand quota; and not __fish_seen_subcommand_from audit help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand quota; and __fish_seen_subcommand_from audit" -s f -l config -l config-path -d 'The configuration file [default: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/]' -r -F
complete -c storage-agent -n "__fish_storage_agent_using_subcommand quota; and __fish_seen_subcommand_from audit" -l lenient -d 'Skip volumes whose backend is unknown instead of refusing the file'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand quota; and __fish_seen_subcommand_from audit" -l repair -d 'Put right what can be put right'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand quota; and __fish_seen_subcommand_from audit" -l deep -d 'Look at each file, for those that left the project of their folder; takes as long as du(1)'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand quota; and __fish_seen_subcommand_from audit" -l json -d 'Print one JSON object instead of text'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand quota; and __fish_seen_subcommand_from audit" -s h -l help -d 'Print help'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand quota; and __fish_seen_subcommand_from help" -f -a "audit" -d 'Find limits that do not hold: directories outside their project, limits that differ, ids used twice'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand quota; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand top" -s f -l config -l config-path -d 'The configuration file [default: ./storage-proxy.toml, ~/.config/backend.ai/, /etc/backend.ai/]' -r -F
complete -c storage-agent -n "__fish_storage_agent_using_subcommand top" -l interval -d 'Seconds between two looks' -r
complete -c storage-agent -n "__fish_storage_agent_using_subcommand top" -l lenient -d 'Skip volumes whose backend is unknown instead of refusing the file'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand top" -l once -d 'Print it once and end, without clearing the screen'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand top" -l json -d 'Print the manager-facing API\'s own reply, once'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand top" -s h -l help -d 'Print help'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand demo" -l directory -d 'Where the throw-away volume is made' -r -F
complete -c storage-agent -n "__fish_storage_agent_using_subcommand demo" -s h -l help -d 'Print help'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand help; and not __fish_seen_subcommand_from check migrate-check quota top demo help" -f -a "check" -d 'Check the configuration and everything it needs, and say what to do about what is wrong'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand help; and not __fish_seen_subcommand_from check migrate-check quota top demo help" -f -a "migrate-check" -d 'Say what will be different for a site that the reference proxy has served. Changes nothing'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand help; and not __fish_seen_subcommand_from check migrate-check quota top demo help" -f -a "quota" -d 'Look after the limits of quota scopes and folders'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand help; and not __fish_seen_subcommand_from check migrate-check quota top demo help" -f -a "top" -d 'Show what the running agent is doing: volumes, transfers, tasks, the last errors'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand help; and not __fish_seen_subcommand_from check migrate-check quota top demo help" -f -a "demo" -d 'Serve a throw-away volume and print commands that try it out'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand help; and not __fish_seen_subcommand_from check migrate-check quota top demo help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c storage-agent -n "__fish_storage_agent_using_subcommand help; and __fish_seen_subcommand_from quota" -f -a "audit" -d 'Find limits that do not hold: directories outside their project, limits that differ, ids used twice'
