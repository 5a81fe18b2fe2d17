// While dropped files are being uploaded, nothing may read them, and no gradio event may update the component: it would send
// them again, or lose them. So the field is watched here, not by gradio's listeners.
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
