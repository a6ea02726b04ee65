#compdef quota-helper
# Completion of quota-helper(8) for zsh.
local -a commands=(
    'serve:answer the agent'
    'check:tell what differs from the record'
    'repair:show which lines the record asks for'
    'rebuild:put on record what directories are tagged with'
)
if ((CURRENT == 2)); then
    _describe command commands
    _arguments '--help[show the commands]' '--version[show the version]'
    return
fi
case $words[2] in
    serve | check) _arguments '*:' '--config[the configuration]:file:_files' ;;
    repair | rebuild) _arguments '*:' '--config[the configuration]:file:_files' '--apply[do it]' ;;
esac
