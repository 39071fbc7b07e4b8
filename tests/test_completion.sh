#!/bin/sh
# Completion, the manual page and help are made from the tables of commands and options: the shells
# and the formatters take them, bash completes with them, and nothing of the tables is missing.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/tap.sh
bantam=$BUILD/bantam
folder=$BUILD/tests/completion
rm -rf "$folder" && mkdir -p "$folder" && cd "$folder" || exit 1
plan 10

for shell in bash zsh fish; do "$bantam" completion $shell >"$shell" || echo "no completion for $shell" >>lost; done
"$bantam" man >bantam.1 || echo "no manual page" >>lost
verdict 'all are printed' "$(cat lost 2>/dev/null)"

for shell in bash zsh fish; do
    if command -v $shell >/dev/null; then
        verdict "$shell parses its completion" "$($shell -n "$shell" 2>&1)"
    else
        skip "$shell parses its completion" "no $shell here"
    fi
done

# Real completion in bash: the words of the command line, and what must be among the answers.
cat >complete.sh <<'EOF'
source ./bash
complete_words() { # WANTED UNWANTED WORDS...: of the last word
    local wanted=$1 unwanted=$2 word
    shift 2
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _bantam
    for word in $wanted; do
        case " ${COMPREPLY[*]} " in *" $word "*) ;; *) echo "'$*' is not completed to $word, but to ${COMPREPLY[*]}" ;; esac
    done
    for word in $unwanted; do
        case " ${COMPREPLY[*]} " in *" $word "*) echo "'$*' is completed to $word" ;; esac
    done
}
touch 'picture.png'
complete_words "train" "eval" bantam tr
complete_words "train eval bench help" "" bantam ""
complete_words "kernels" "" bantam help ker
complete_words "--epochs" "--opt" bantam train --ep
complete_words "--compare --batch" "--epochs" bantam bench --
complete_words "nesterov" "sgd" bantam train --opt nes
complete_words "onecycle" "" bantam train lenet --sched = one
complete_words "const cosine" "" bantam train lenet --sched =
complete_words "fp64" "" bantam train --precision fp
complete_words "bf16" "fp64" bantam bench --precision ""
complete_words "lenet lenet5" "mlp" bantam train len
complete_words "digits fashion-mnist" "" bantam train mlp ""
complete_words "picture.png" "" bantam predict run pic
complete_words "get" "" bantam data ge
complete_words "" "--epochs" bantam nonsense --
EOF
if command -v bash >/dev/null; then
    verdict 'bash completes commands, options, choices and files' "$(bash complete.sh 2>&1)"
else
    skip 'bash completes commands, options, choices and files' 'no bash here'
fi

if command -v fish >/dev/null; then
    reasons=
    for case in 'train --ep=--epochs' 'train --opt nes=nesterov' 'bench --comp=--compare' 'tr=train' 'completion b=bash'; do
        fish -c "source ./fish; complete -C 'bantam ${case%%=*}'" | grep -q -e "^${case#*=}" || reasons="$reasons '${case%%=*}'"
    done
    verdict 'fish completes commands, options and choices' "$reasons"
else
    skip 'fish completes commands, options and choices' 'no fish here'
fi

# Every option of every command, as help has them, in the completions and in the manual page.
missing=
commands=$("$bantam" help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p' | grep -v '^\(help\|mlp\|lenet\|lenet5\)$')
page=$(sed -n 's/^\.BI \([^ ]*\).*/ \1 /p' bantam.1 | sed 's/[\]//g')
for command in $commands; do
    in_bash=$(sed -n "/^    $command)/,/options=/p" bash | sed -n "s/.*options='\(.*\)'.*/ \1 /p")
    in_zsh=$(sed -n "/^    $command)/,/;;\$/p" zsh | sed -n "s/^ *'\(--[a-z-]*\).*/ \1 /p")
    in_fish=$(sed -n "s/.*subcommand_from $command' -l \([a-z-]*\) .*/ --\1 /p" fish)
    for option in $("$bantam" help "$command" | sed -n 's/^  \(--[a-z-]*\).*/\1/p'); do
        case $in_bash in *" $option "*) ;; *) missing="$missing bash:$command$option" ;; esac
        case $in_zsh in *" $option "*) ;; *) missing="$missing zsh:$command$option" ;; esac
        case $in_fish in *" $option "*) ;; *) missing="$missing fish:$command$option" ;; esac
        case $page in *" $option "*) ;; *) missing="$missing man:$option" ;; esac
    done
done
[ "$(printf '%s\n' $commands | wc -l)" -gt 10 ] || missing="$missing commands"
verdict 'no option of any command is missing' "$missing"

missing=
for command in $commands; do
    "$bantam" help "$command" | sed -n '/^Examples:/,$p' | grep -q "^  bantam $command" || missing="$missing $command"
done
verdict 'help of every command has examples' "${missing:+none for$missing}"

# (The page has no date: the same build gives the same page.)
if command -v mandoc >/dev/null; then
    verdict 'mandoc takes the manual page' "$(mandoc -Tlint -W warning bantam.1 2>&1 | grep -v 'missing date')"
elif command -v man >/dev/null && man --help 2>&1 | grep -q -- --warnings; then
    verdict 'man takes the manual page' "$(LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l -Tutf8 -Z bantam.1 2>&1 >/dev/null)"
else
    skip 'a formatter takes the manual page' 'neither mandoc nor man here'
fi

reasons=
"$bantam" completion tcsh >/dev/null 2>err && reasons='completion for tcsh was printed'
grep -q 'bash, zsh or fish' err || reasons="$reasons $(cat err)"
verdict 'another shell is refused with a sentence' "$reasons"
