// The status poll, and the curve received so far. It works with and without gradio's queue, and finds a running job after a
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
    // of a row of the curve: steps together, with their lowest and highest loss and where these are (`jobs/curve.py`)
    const COLUMNS = ["first", "lowStep", "low", "highStep", "high", "mean", "seconds", "lowRate", "highRate", "norm"];

    const EMPTY = {stride: 0, buckets: []};

    let run = null; // the curve of the last reported job: its buckets, each of `stride` steps
    let timer = null;

    const isActive = (state) => ACTIVE.includes(state);
    const runOf = (job) => `${job.id} ${job.started}`; // a job that is resumed runs again under its id

    const bucketOf = (row) => Object.fromEntries(COLUMNS.map((name, place) => [name, row[place]]));

    // The server thins the curve as the run grows; then all of it comes anew.
    function take({stride, first, buckets}) {
        run.stride = stride;
        run.buckets = [...run.buckets.slice(0, first), ...buckets.map(bucketOf)];
    }

    // The last bucket is asked for again: it may have got more steps.
    async function ask({stride, buckets}) {
        const response = await fetch(`${STATUS}?stride=${stride}&from=${Math.max(0, buckets.length - 1)}`, {cache: "no-store"});
        if (response.status === 401) page.guard.lock();
        return response.ok ? response.json() : null;
    }

    // The server's status; updates `run`.
    async function latest() {
        const asked = run;
        let told = await ask(run || EMPTY);
        const other = told?.job && runOf(told.job) !== run?.id;
        if (other && asked) told = await ask(EMPTY);
        if (!told?.job) return told;
        if (other) run = {id: runOf(told.job), ...EMPTY};
        take(told.job.curve);
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
