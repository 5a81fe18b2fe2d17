// The status poll, and the losses received so far. It works with and without gradio's queue, and finds a running job after a
// reload. Other scripts listen to `trainLoraStatus`.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.status = (() => {
    const page = window.trainLora;
    const STATUS = "train-lora/status";
    const FAST_MS = 500;
    const SLOW_MS = 4000;
    const ACTIVE = ["running", "lent", "paused", "stopping"];
    const WORDS = { // for people, of a run's states and of those of jobs in the list
        running: "Running", lent: "Lent", paused: "Paused", stopping: "Stopping", done: "Done", finished: "Done", stopped: "Stopped",
        failed: "Failed", waiting: "Waiting", interrupted: "Interrupted", broken: "Unreadable",
    };
    const KEPT = 0.95; // decay of the mean per step

    let run = null; // the losses of the last reported job
    let timer = null;

    const isActive = (state) => ACTIVE.includes(state);
    const runOf = (job) => `${job.id} ${job.started}`; // a job that is resumed runs again under its id

    // The bias-corrected exponential mean. null is a loss that is not finite; a note says which step.
    function take(losses) {
        for (const told of losses) {
            const loss = told === null ? run.losses[run.losses.length - 1] || 0 : told;
            run.losses.push(loss);
            run.mean = KEPT * run.mean + (1 - KEPT) * loss;
            run.means.push(run.mean / (1 - KEPT ** run.losses.length));
            run.low = Math.min(run.low, loss);
            run.high = Math.max(run.high, loss);
        }
    }

    async function ask(since) {
        const response = await fetch(`${STATUS}?since=${since}`, {cache: "no-store"});
        if (response.status === 401) page.guard.lock();
        return response.ok ? response.json() : null;
    }

    // The server's status; updates `run`.
    async function latest() {
        const since = run ? run.losses.length : 0;
        let told = await ask(since);
        const other = told?.job && runOf(told.job) !== run?.id;
        if (other && since) told = await ask(0);
        if (!told?.job) return told;
        if (other) run = {id: runOf(told.job), losses: [], means: [], mean: 0, low: Infinity, high: -Infinity};
        if (other || run.losses.length === since) take(told.job.losses);
        return told;
    }

    async function poll() {
        clearTimeout(timer);
        let active = false;
        try {
            const told = await latest();
            if (told) {
                active = told.job !== null && isActive(told.job.state);
                document.dispatchEvent(new CustomEvent("trainLoraStatus", {detail: {...told, run}}));
            }
        } catch (error) {
            console.warn("train-lora: the status could not be loaded", error);
        }
        clearTimeout(timer);
        if (!page.guard.isLocked()) timer = setTimeout(poll, active || page.train.isStarting() ? FAST_MS : SLOW_MS);
    }

    // Polls soon, since something was requested.
    function pollSoon() {
        clearTimeout(timer);
        timer = setTimeout(poll, FAST_MS);
    }

    onUiLoaded(poll);

    return {WORDS, isActive, lastRun: () => run?.id, poll, pollSoon, runOf};
})();
