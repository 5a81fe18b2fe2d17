// The webui's galleries and prompt, where a new LoRA is listed and tried.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.txt2img = (() => {
    const page = window.trainLora;
    const REFRESHED_MS = 10000; // timeout of a gallery's refresh
    let refreshedFor = null;

    function test(job) {
        const prompt = page.dom.find("#txt2img_prompt > label > textarea");
        const call = `<lora:${job.saved}:1>${job.trigger ? ` ${job.trigger}` : ""}`;
        if (!prompt.value.includes(`<lora:${job.saved}:`)) {
            prompt.value = prompt.value.trim() ? `${call}, ${prompt.value}` : call;
            updateInput(prompt);
        }
        switch_to_txt2img();
    }

    // One gallery after the other: each refresh empties the webui's shared list of LoRAs before it fills it again.
    function refresh(job) {
        if (refreshedFor === page.status.runOf(job)) return;
        const [first, second] = ["txt2img", "img2img"].map((tab) => page.dom.find(`#${tab}_lora_extra_refresh_internal`));
        if (!first || !second) return;
        refreshedFor = page.status.runOf(job);
        first.dispatchEvent(new Event("click"));
        const pane = () => page.dom.find("#txt2img_lora_pane"); // each answer replaces it
        const before = pane();
        const asked = Date.now();
        const timer = setInterval(() => {
            if (pane() === before && Date.now() - asked < REFRESHED_MS) return;
            clearInterval(timer);
            second.dispatchEvent(new Event("click"));
        }, 100);
    }

    document.addEventListener("trainLoraStatus", ({detail: {job}}) => {
        if (job && job.state === "done") refresh(job);
    });

    return {test};
})();
