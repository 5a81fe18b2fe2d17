// The buttons of a run. One press of Train is one job, the page reacts at once, and an older job is hidden until the answer
// arrives. The others are shown while they apply.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.train = (() => {
    const page = window.trainLora;
    const PRESSED_MS = 1000; // from the key of a press of Train until gradio itself marks its answer as pending
    const LOST_MS = 60000; // timeout of an answer
    const SHOWN = { // by state; a button that is not listed is always shown
        train_lora_pause: ["running", "lent"],
        train_lora_go_on: ["paused"],
        train_lora_save_now: ["running", "lent", "paused"],
        train_lora_sample_now: ["running", "lent", "paused"],
    };

    let pressed = false; // Train was pressed, and gradio has not marked it as pending yet
    let starting = false;
    let dismissed = null; // the run of an old job that a refused start has hidden
    let answeredBefore = null; // the job in the server's last answer to Train

    const message = () => page.dom.find("#train_lora_message [data-job]");

    // Called by gradio when Train is pressed.
    async function withKey(_, ...values) {
        if (!page.status.isActive(page.progress.stateShown())) {
            answeredBefore = message()?.dataset.job;
            starting = true;
            page.progress.replace("starting", "Starting");
        }
        page.status.pollSoon();
        try {
            return [await page.guard.key(), page.images.ids(), ...values.slice(1)];
        } finally {
            setTimeout(() => { pressed = false; }, PRESSED_MS);
        }
    }

    // Drops the second click of a double click, and any until the first is sent; from then on gradio drops them.
    function clicked(event) {
        if (!event.target.closest("#train_lora_train")) return;
        if (pressed || event.detail > 1) {
            event.stopPropagation();
            return;
        }
        pressed = true;
        setTimeout(() => { pressed = false; }, LOST_MS); // a click that gradio dropped gets no answer
    }

    // The server queued the job, or refused to start it: its messages are above, an older job is hidden.
    function answered() {
        pressed = false;
        const waits = page.dom.find("#train_lora_message [data-queue-serial]");
        if (!waits && page.dom.find("#train_lora_message .train-lora-problem")) {
            starting = false;
            if (page.status.isActive(page.progress.stateShown())) return;
            dismissed = page.status.lastRun();
            page.progress.replace("refused", "");
            return;
        }
        if (waits) starting = false;
        page.status.poll();
    }

    // The status shows the job of the answer: the answer is no longer needed.
    function begun(job) {
        const answer = message();
        if (!answer || answer.dataset.job !== job.id || (starting && job.id === answeredBefore)) return;
        if (answer.textContent) answer.textContent = "";
        starting = false;
    }

    // Whether the status still shows a job before the requested one.
    function hides(job) {
        begun(job);
        return page.status.runOf(job) === dismissed || (starting && !page.status.isActive(job.state));
    }

    document.addEventListener("trainLoraStatus", ({detail: {job}}) => {
        if (!job) return;
        const see = (id, seen) => page.dom.find(`#${id}`)?.classList.toggle("train-lora-hidden", !seen);
        const active = page.status.isActive(job.state);
        see("train_lora_more_buttons", active);
        for (const [id, states] of Object.entries(SHOWN)) see(id, states.includes(job.state));
    });

    onUiLoaded(() => {
        page.dom.watch("#train_lora_message", answered);
        page.dom.find("#train_lora_buttons").addEventListener("click", clicked, true); // before gradio's own
    });

    return {hides, isStarting: () => starting, withKey};
})();
