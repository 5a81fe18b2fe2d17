// What was painted of a mask: a list of steps, in pixels of the image, that can be drawn at any scale. While it is painted, a mask
// is black where the image is not learned, and transparent where it is; as a file it is black and white.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesStrokes = (() => {
    const DOT = 0.01; // length of a stroke of one point, since nothing is drawn of one without a length

    const paper = (width, height) => Object.assign(document.createElement("canvas"), {width, height});

    const fill = (learned) => ({
        draw(context, {width, height}) {
            context.clearRect(0, 0, width, height);
            if (!learned) context.fillRect(0, 0, width, height);
        },
    });

    const invert = () => ({
        draw(context, {width, height}) {
            context.globalCompositeOperation = "source-out"; // black where nothing was
            context.fillRect(0, 0, width, height);
        },
    });

    // A stroke of a brush, `size` pixels wide, that more points are added to.
    function stroke(size, erases, first) {
        const points = [first];
        return {
            points,
            draw(context, _, scale, from = 0) {
                context.globalCompositeOperation = erases ? "source-over" : "destination-out";
                Object.assign(context, {lineWidth: size * scale, lineCap: "round", lineJoin: "round"});
                const [start, ...others] = points.slice(from).map((point) => point.map((at) => at * scale));
                context.beginPath();
                context.moveTo(...start);
                for (const point of others.length ? others : [[start[0] + DOT, start[1]]]) context.lineTo(...point);
                context.stroke();
            },
        };
    }

    // A mask from a file; null if the browser cannot read it.
    async function file(blob) {
        const picture = await createImageBitmap(blob).catch(() => null);
        if (!picture) return null;
        const dark = paper(picture.width, picture.height);
        const context = dark.getContext("2d", {willReadFrequently: true});
        context.drawImage(picture, 0, 0);
        const pixels = context.getImageData(0, 0, dark.width, dark.height);
        const {data} = pixels;
        for (let at = 0; at < data.length; at += 4) {
            data[at + 3] = 255 - data[at];
            data[at] = data[at + 1] = data[at + 2] = 0;
        }
        context.putImageData(pixels, 0, 0);
        return {
            draw(around, {width, height}) {
                around.clearRect(0, 0, width, height);
                around.drawImage(dark, 0, 0, width, height);
            },
        };
    }

    // Draws a step, or what was added to a stroke since its point `from`.
    function draw(canvas, step, scale, from = 0) {
        const context = canvas.getContext("2d");
        context.save();
        context.fillStyle = context.strokeStyle = "black";
        step.draw(context, canvas, scale, from);
        context.restore();
    }

    // A PNG of the steps, white where the image is learned; null if the browser cannot make one of this size.
    function png([width, height], steps) {
        const canvas = paper(width, height);
        for (const step of steps) draw(canvas, step, 1);
        const context = canvas.getContext("2d");
        context.globalCompositeOperation = "destination-over";
        context.fillStyle = "white";
        context.fillRect(0, 0, width, height);
        return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    }

    return {draw, file, fill, invert, png, stroke};
})();
