// What jobs keep on disk beside their LoRAs.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.queueKept = (() => {
    const page = window.trainLora;
    const MOST_NAMES = 10;

    const DOES = {
        free({free}) {
            const what = "samples, latents, and images and states of finished jobs that are not needed to resume any";
            if (confirm(`Remove ${free} of ${what}? LoRAs are kept.`)) page.queue.press("kept", "free");
        },
        states({asked, names}) {
            const more = names.length > MOST_NAMES ? ` and ${names.length - MOST_NAMES} more` : "";
            const whose = names.slice(0, MOST_NAMES).join(", ") + more;
            const loss = `These jobs cannot be resumed afterwards: ${whose}. LoRAs are kept.`;
            if (confirm(`Remove ${asked} of saved states and their images? ${loss}`)) page.queue.press("kept", "states");
        },
        limit({limit}) {
            const rule = "Above that, the oldest files that are not needed to resume a job are removed.";
            const said = prompt(`How many GB may jobs keep besides their LoRAs? ${rule}`, limit);
            if (said !== null) page.queue.press("kept", said);
        },
    };

    function actions({free, asked, can_free: canFree, can_ask: canAsk}) {
        return [
            canFree && ["free", `Remove samples and latents (${free})`],
            canAsk && ["states", `Remove saved states (${asked})`],
            ["limit", "Change limit"],
        ].filter(Boolean);
    }

    function bar() {
        const node = page.dom.element("div", "train-lora-row-buttons");
        node.id = "train_lora_kept";
        const text = page.dom.element("span");
        let shown = null;
        const buttons = page.dom.keyed(([action]) => action, ([action]) => {
            const view = page.dom.button("train-lora-small", () => DOES[action](shown));
            return {node: view.node, show: ([, words]) => view.show(words)};
        });
        return {
            node,
            show({kept}) {
                shown = kept;
                text.className = kept.over ? "train-lora-problem" : "train-lora-phase";
                page.dom.setText(text, `Kept by jobs: ${kept.size} of ${kept.limit} GB`);
                page.dom.arrange(node, [text, ...buttons(actions(kept))]);
            },
        };
    }

    return {bar};
})();
