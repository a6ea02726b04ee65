# Completion of quota-helper(8) for bash.
_quota_helper() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words
    case $before in
        --config) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    esac
    case ${COMP_WORDS[1]} in
        serve | check) words="--config" ;;
        repair | rebuild) words="--config --apply" ;;
        *) words="serve check repair rebuild --help --version" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _quota_helper quota-helper
