# shellcheck shell=bash
# Sourced by the scripts beside it: a run that is asked to stop saves, and its job goes back to the queue.

# Run a command until it ends, or until SIGUSR1 comes, as the scripts order it two minutes before the end of their time.
run_and_requeue() {
    "$@" &
    child=$!
    trap stop_and_requeue USR1
    local status=0
    wait "$child" || status=$?
    return "$status"
}

# A run on one GPU stops between two steps and saves. Several processes may not agree on a step any more: they go on
# from their last validation.
# shellcheck disable=SC2329 # by the trap
stop_and_requeue() {
    echo "the time is nearly up: job $SLURM_JOB_ID goes back to the queue"
    kill -TERM "$child" 2>/dev/null || true
    for _ in {1..90}; do
        kill -0 "$child" 2>/dev/null || break
        sleep 1
    done
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
