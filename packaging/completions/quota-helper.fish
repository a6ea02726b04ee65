# Completion of quota-helper(8) for fish.
complete -c quota-helper -f
complete -c quota-helper -n __fish_use_subcommand -a serve -d 'Answer the agent'
complete -c quota-helper -n __fish_use_subcommand -a check -d 'Tell what differs from the record'
complete -c quota-helper -n __fish_use_subcommand -a repair -d 'Show which lines the record asks for'
complete -c quota-helper -n __fish_use_subcommand -a rebuild -d 'Put on record what directories are tagged with'
complete -c quota-helper -n '__fish_seen_subcommand_from serve check repair rebuild' -l config -r -F -d 'The configuration'
complete -c quota-helper -n '__fish_seen_subcommand_from repair rebuild' -l apply -d 'Do it instead of showing it'
