// The end of a run rings: in the document's title and the tab's name until the page is touched, and with a sound if a person has
// chosen that.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.ring = (() => {
    const page = window.trainLora;
    const SOUND = "train_lora_sound"; // in the browser
    const ENDS = {
        done: ["\u2713", "{name} is done"], stopped: ["\u25a0", "{name} was stopped"], failed: ["\u2717", "{name} has failed"],
    };
    const TONES = [[660, 0], [880, 0.15]]; // Hz, and seconds from now
    const TONE_S = 0.15;

    let active = null; // the run that was seen running
    let rung = null; // `{title, name, text}`: the tab's name as a node, and both texts as they were

    const wantsSound = () => localStorage.getItem(SOUND) === "on";

    function tabButton() {
        const name = page.words.exact("Train LoRA");
        return [...gradioApp().querySelectorAll("#tabs > .tab-nav button")].find((button) => button.textContent.trim() === name);
    }

    // A browser plays none before the page was touched.
    function play() {
        if (!wantsSound() || !navigator.userActivation?.hasBeenActive) return;
        const audio = new AudioContext();
        const volume = audio.createGain();
        volume.gain.value = 0.1;
        volume.connect(audio.destination);
        for (const [frequency, after] of TONES) {
            const tone = audio.createOscillator();
            tone.frequency.value = frequency;
            tone.connect(volume);
            tone.start(audio.currentTime + after);
            tone.stop(audio.currentTime + after + TONE_S);
        }
        setTimeout(() => audio.close(), 1000);
    }

    function ring(job) {
        quiet();
        const [sign, sentence] = ENDS[job.state];
        const button = tabButton();
        const name = button && [...button.childNodes].find((child) => child.nodeType === Node.TEXT_NODE && child.data.trim());
        rung = {title: document.title, name, text: name?.data};
        document.title = `${sign} ${page.words.say(sentence, job)}`;
        if (name) name.data = `${rung.text.trimEnd()} ${sign}`;
        play();
    }

    function quiet() {
        if (!rung) return;
        document.title = rung.title;
        if (rung.name) rung.name.data = rung.text;
        rung = null;
    }

    // A box by which a person chooses the sound.
    function choice(needed) {
        const {view, line} = page.dom;
        const box = view("input", "", {attributes: () => ({type: "checkbox"})});
        box.node.checked = wantsSound();
        box.node.addEventListener("change", () => localStorage.setItem(SOUND, box.node.checked ? "on" : "off"));
        return view("label", "train-lora-sound", {parts: [box, line("span", "", () => "Sound at the end")], needed});
    }

    document.addEventListener("trainLoraStatus", ({detail: {job}}) => {
        if (!job) return;
        if (page.status.isActive(job.state)) active = page.status.runOf(job);
        else if (active === page.status.runOf(job)) {
            active = null;
            ring(job);
        }
    });
    for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, quiet, true);

    return {choice};
})();
