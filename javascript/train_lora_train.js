// The Train button: one press is one job, something happens at once, and an older job is out of sight until the answer is there.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.train = (() => {
    const page = window.trainLora;
    const PRESSED_MS = 1000; // from the key of a press of Train to gradio's own notice that its answer is out
    const LOST_MS = 60000; // an answer that has not come by then is not waited for

    let pressed = false; // Train, and gradio does not know yet
    let starting = false;
    let dismissed = null; // the run of an old job that a refused start has put out of sight
    let shown = null; // the run that the status named last
    let answeredBefore = null; // the job that the server's last answer to Train named

    const message = () => page.dom.find("#train_lora_message [data-job]");

    // Called by gradio when Train is pressed.
    async function withKey(_, ...values) {
        if (!page.status.isActive(page.progress.stateShown())) {
            answeredBefore = message() ? message().dataset.job : null;
            starting = true;
            page.progress.replace("starting", "Starting");
        }
        page.status.pollSoon();
        try {
            return [await page.guard.key(), ...values];
        } finally {
            setTimeout(() => { pressed = false; }, PRESSED_MS);
        }
    }

    // The second click of a double click begins nothing, nor does any until the first is on its way: from then on gradio drops them.
    function clicked(event) {
        if (!event.target.closest("#train_lora_train")) return;
        if (pressed || event.detail > 1) {
            event.stopPropagation();
            return;
        }
        pressed = true;
        setTimeout(() => { pressed = false; }, LOST_MS); // one that gradio dropped has no answer
    }

    // The server let the job wait, or refused to start: its sentences stand above, an older job is out of sight.
    function answered() {
        pressed = false;
        const waits = page.dom.find("#train_lora_message [data-queue-serial]");
        if (!waits && page.dom.find("#train_lora_message .train-lora-problem")) {
            starting = false;
            if (page.status.isActive(page.progress.stateShown())) return;
            dismissed = shown;
            page.progress.replace("refused", "");
            return;
        }
        if (waits) starting = false;
        page.status.poll();
    }

    // The job that Train was answered with is there: the answer has done its work.
    function begun(job) {
        const answer = message();
        if (!answer || answer.dataset.job !== job.id || (starting && job.id === answeredBefore)) return;
        if (answer.textContent) answer.textContent = "";
        starting = false;
    }

    // Whether the status still tells of a job before the one that was asked for.
    function hides(job) {
        begun(job);
        return page.status.runOf(job) === dismissed || (starting && !page.status.isActive(job.state));
    }

    document.addEventListener("trainLoraStatus", ({detail: {job}}) => {
        if (job) shown = page.status.runOf(job);
    });

    onUiLoaded(() => {
        const watch = {childList: true, subtree: true, characterData: true};
        new MutationObserver(answered).observe(page.dom.find("#train_lora_message"), watch);
        page.dom.find("#train_lora_buttons").addEventListener("click", clicked, true); // before gradio's own
    });

    return {hides, isStarting: () => starting, withKey};
})();
