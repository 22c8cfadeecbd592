# shellcheck shell=bash
# Sourced by the scripts beside it: a run that is asked to stop saves, and its job goes back to the queue.

# Run a command that is srun until it ends. The job goes back to the queue where the command was stopped:
# - by SIGUSR1 to this script, as the scripts order it two minutes before the end of their time;
# - because the job must make room and has a time of grace for it: SLURM tells the tasks of srun alone, and would take
#   a job that ends within the time for a failed one.
# At a pre-emption without grace, at a requeue and at a cancellation SLURM sends SIGTERM to all, and knows what it does.
run_and_requeue() {
    local status=0
    asked=
    "$@" &
    child=$!
    trap stop_tasks USR1
    # By itself bash would end at once, and its job with it, while the tasks still save.
    trap : TERM
    # A signal ends `wait`, not what it waits for.
    while true; do
        status=0
        wait "$child" || status=$?
        kill -0 "$child" 2>/dev/null || break
    done
    if [ "$status" -ne 0 ] && { [ -n "$asked" ] || must_make_room; }; then
        echo "job $SLURM_JOB_ID goes back to the queue"
        scontrol requeue "$SLURM_JOB_ID"
        exit 0
    fi
    return "$status"
}

# The tasks finish their step and save. srun itself would kill them at a signal; those that can't end in 90 seconds are
# ended by the requeue.
# shellcheck disable=SC2329 # by the trap
stop_tasks() {
    [ -z "$asked" ] || return 0
    asked=1
    echo "the time of job $SLURM_JOB_ID is nearly up"
    scancel --signal=TERM "$SLURM_JOB_ID"
    for _ in {1..90}; do
        kill -0 "$child" 2>/dev/null || return 0
        sleep 1
    done
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}

must_make_room() {
    local job
    job="$(scontrol show job "$SLURM_JOB_ID")" || return 1
    [[ "$job" == *JobState=RUNNING* && "$job" =~ PreemptTime=[0-9] ]]
}
