// While dropped files are on their way nothing may read them, and no event of gradio's may renew its components: it would send
// them once more, or forget them. That is why the field is watched here and not by gradio's listeners.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.uploads = (() => {
    const page = window.trainLora;

    const isUploading = () => page.dom.find("#train_lora_files .generating") !== null;

    function changed() {
        page.dom.find("#train_lora_train").disabled = isUploading();
        page.report.formChanged();
    }

    onUiLoaded(() => {
        const watch = {childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ["class"]};
        new MutationObserver(changed).observe(page.dom.find("#train_lora_files"), watch);
    });

    return {isUploading};
})();
