// The buttons of a run: shown while they apply, and labelled with their job.
"use strict";

window.trainLora = window.trainLora || {};
(() => {
    const page = window.trainLora;
    const SHOWN = { // by state; a button that is not listed is always shown
        train_lora_pause: ["running", "lent"],
        train_lora_go_on: ["paused"],
        train_lora_save_now: ["running", "lent", "paused"],
    };
    const OF_A_RUN = ["train_lora_stop", "train_lora_keep", ...Object.keys(SHOWN)];

    function see(id, seen) {
        const node = page.dom.find(`#${id}`);
        if (node) node.classList.toggle("train-lora-hidden", !seen);
    }

    document.addEventListener("trainLoraStatus", ({detail: {job}}) => {
        if (!job) return;
        const active = page.status.isActive(job.state);
        see("train_lora_more_buttons", active);
        for (const [id, states] of Object.entries(SHOWN)) see(id, states.includes(job.state));
        for (const id of OF_A_RUN) {
            const node = page.dom.find(`#${id}`);
            if (node) page.dom.setAttribute(node, "aria-label", active ? `${node.textContent.trim()}: ${job.name}` : null);
        }
    });
})();
