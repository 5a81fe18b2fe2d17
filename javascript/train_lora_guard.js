// The key that each event carries; the server's guard gives it to pages that may train.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.guard = (() => {
    const page = window.trainLora;
    const KEY = "train-lora/key";
    let locked = false; // the webui requires credentials that this page lacks

    // The browser asks for the API's credentials if the webui has no other login.
    async function key() {
        const response = await fetch(KEY, {method: "POST", cache: "no-store"}).catch(() => null);
        if (!response) return "";
        if (response.ok && locked) {
            locked = false;
            page.status.poll();
        }
        locked = response.status === 401;
        return response.ok ? (await response.json()).key : "";
    }

    // Called by gradio before an event: its first input is the key.
    const withKey = async (_, ...values) => [await key(), ...values];

    return {key, withKey, isLocked: () => locked, lock: () => { locked = true; }};
})();
