#!/usr/bin/env bash
# Starts one process for each device, with the arguments of MindFormers' script of this name, and waits for them:
#   bash scripts/msrun_launcher.sh "run_generate.py --use_parallel True ..." 8
# JOIN and CLUSTER_TIME_OUT are taken and not needed: ranks are always waited for.
set -euo pipefail

usage() {
    echo 'usage: bash msrun_launcher.sh "COMMAND" [RANKS]' >&2
    echo '       bash msrun_launcher.sh "COMMAND" RANKS MASTER_PORT LOG_DIR JOIN CLUSTER_TIME_OUT' >&2
    echo '       bash msrun_launcher.sh "COMMAND" RANKS LOCAL_RANKS MASTER_ADDR MASTER_PORT NODE_RANK LOG_DIR JOIN' \
        'CLUSTER_TIME_OUT' >&2
    exit 2
}

scripts=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
python=$(command -v python || command -v python3)
arguments=(--script_folder "$scripts" --script_folder "$(dirname "$scripts")")
case $# in
    1 | 2) arguments+=(--ranks "${2:-8}") ;;
    6) arguments+=(--ranks "$2" --master_port "$3" --log_dir "$4") ;;
    9)
        [[ $2 =~ ^[1-9][0-9]*$ && $3 =~ ^[1-9][0-9]*$ && $(($2 % $3)) == 0 ]] || usage
        arguments+=(--ranks "$2" --nnodes $(($2 / $3)) --master_addr "$4" --master_port "$5" --node_rank "$6")
        arguments+=(--log_dir "$7")
        ;;
    *) usage ;;
esac
exec "$python" -m mindgen launch "${arguments[@]}" -- "$1"
