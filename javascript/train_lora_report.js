// The report is renewed a moment after the last change. gradio drops a click while the answer to the last one is out, so a
// change meanwhile is remembered; every answer differs in its serial number and so is seen to arrive.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.report = (() => {
    const page = window.trainLora;
    const CHANGED_MS = 400;
    const LOST_MS = 60000; // an answer that has not come by then is not waited for

    let timer = null; // from a change to the question
    let asked = false;
    let again = false; // something changed since
    let serial = null; // of the newest answer
    let givenUp = null;
    let refused = false; // the page had no key for the last report

    // Called by gradio. The report is asked for by itself: nobody is asked for credentials a second time because of it.
    async function withKey(_, ...values) {
        const key = page.guard.isLocked() && refused ? "" : await page.guard.key();
        refused = key === "";
        return [key, ...values];
    }

    function formChanged() {
        clearTimeout(timer);
        timer = setTimeout(ask, CHANGED_MS);
    }

    // Called by gradio when a preset or a file has filled the form, which raises no event of the fields.
    function filled() {
        formChanged();
        return [];
    }

    function ask() {
        if (page.uploads.isUploading()) {
            formChanged();
            return;
        }
        if (asked) {
            again = true;
            return;
        }
        asked = true;
        clearTimeout(givenUp);
        givenUp = setTimeout(over, LOST_MS);
        page.dom.find("#train_lora_check").click();
    }

    function over() {
        asked = false;
        clearTimeout(givenUp);
        if (again) formChanged();
        again = false;
    }

    // gradio writes into the report while the answer is out, too.
    function written() {
        const mark = page.dom.find("#train_lora_report [data-serial]");
        if (!mark || mark.dataset.serial === serial) return;
        serial = mark.dataset.serial;
        over();
    }

    onUiLoaded(() => {
        const watch = {childList: true, subtree: true, characterData: true};
        new MutationObserver(written).observe(page.dom.find("#train_lora_report"), watch);
        const form = page.dom.find("#train_lora_form");
        for (const kind of ["input", "change", "click"]) form.addEventListener(kind, formChanged);
    });

    return {filled, formChanged, withKey};
})();
