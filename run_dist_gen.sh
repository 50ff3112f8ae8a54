#!/usr/bin/env bash
# Starts one process for each device, as MindFormers' script of this name, and waits for them:
#   export INPUT_DATA="An increasing sequence: one,"
#   bash run_dist_gen.sh "python generate_custom.py --use_parallel True ..." hccl_2p_01_127.0.0.1.json '[0,2]' 2
# Ranks run in the current folder, with logs in output/log/rank_N; a script that is not there is taken from this folder
# or the one above. INPUT_DATA becomes --input_data, unless the command has its prompts.
set -euo pipefail

if [ $# != 4 ]; then
    echo 'usage: bash run_dist_gen.sh "COMMAND" RANK_TABLE DEVICE_RANGE RANK_SIZE, a range like [0,8] for 0 to 7' >&2
    exit 2
fi
scripts=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
python=$(command -v python || command -v python3)
command=$1
prompts='(^|[[:space:]])--(input_data|predict_data|prompt)([[:space:]=]|$)'
if [ -n "${INPUT_DATA:-}" ] && ! [[ $command =~ $prompts ]]; then
    quote="'\\''" # what stands for ' between '...'
    command+=" --input_data '${INPUT_DATA//\'/$quote}'"
fi
folders=(--script_folder "$scripts" --script_folder "$(dirname "$scripts")")
exec "$python" -m mindgen launch --rank_table "$2" --devices "$3" --ranks "$4" "${folders[@]}" -- "$command"
