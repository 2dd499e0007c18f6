// The page of the occlusion task. trials.js, written by jobs/page.py, has the tasks; readout/answers.py reads what this saves.
"use strict";

(() => {
  const FORMAT = "occlusion-answers";
  const VERSION = 1;
  const KEYS = ["s", "d", "f", "j", "k", "l"];
  const CONFIDENCE = [3, 2, 1, 1, 2, 3];
  const SURE = { 1: "a guess", 2: "fairly sure", 3: "sure" };
  const PAUSE = 350; // ms from the choice to Continue, as published
  const PRACTICE = 4; // practice tasks a pass
  const { ParameterType } = jsPsychModule;
  const given = window.TRIALS;

  // ---------------------------------------------------------------------------------------------- small things

  const random = (n) => Math.floor((crypto.getRandomValues(new Uint32Array(1))[0] / 2 ** 32) * n);
  const hex = () => [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, "0")).join("");

  function shuffled(list) {
    const left = [...list];
    return list.map(() => left.splice(random(left.length), 1)[0]);
  }

  /** CRC-32 of a text's UTF-8 bytes, 8 hexadecimal digits: tells an edited or cut file, not a forged one. */
  function checksum(text) {
    let crc = ~0;
    for (const byte of new TextEncoder().encode(text)) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    }
    return (~crc >>> 0).toString(16).padStart(8, "0");
  }

  /** What the browser keeps between visits; a browser that keeps nothing for files is taken as new each time. */
  const kept = {
    name: `occlusion-${given.page}`,
    read() {
      try {
        return JSON.parse(localStorage.getItem(this.name)) ?? {};
      } catch {
        return {};
      }
    },
    write(value) {
      try {
        localStorage.setItem(this.name, JSON.stringify(value));
      } catch {
        // Nothing depends on it.
      }
    },
  };

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /** The text of a template of index.html, with its gaps filled and its drawings drawn. */
  function text(name, fill = {}) {
    const content = document.getElementById(name).content.cloneNode(true);
    for (const gap of content.querySelectorAll("[data-fill]")) gap.textContent = fill[gap.dataset.fill];
    for (const place of content.querySelectorAll("[data-example]")) place.append(...EXAMPLES[place.dataset.example]());
    return content;
  }

  // ---------------------------------------------------------------------------------------------- the made example

  // The name of SVG's namespace, from the parser: no address is written in this page.
  const SVG = new DOMParser().parseFromString("<svg>", "text/html").querySelector("svg").namespaceURI;

  const svg = (inside, label) => {
    const made = document.createElementNS(SVG, "svg");
    made.setAttribute("viewBox", "0 0 100 100");
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", label);
    for (const [tag, attributes] of inside) {
      const part = document.createElementNS(SVG, tag);
      for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
      made.append(part);
    }
    return made;
  };
  const scene = (sky, ground) => [
    ["rect", { width: 100, height: 100, fill: sky }],
    ["rect", { y: 64, width: 100, height: 36, fill: ground }],
  ];
  const ball = (x, y, r) => [
    ["circle", { cx: x, cy: y, r, fill: "#d9482b" }],
    ...[-0.5, 0, 0.5].map((at) => {
      const half = r * Math.sqrt(1 - at * at) * 0.97;
      return ["line", { x1: x - half, x2: x + half, y1: y + at * r, y2: y + at * r, stroke: "#fff", "stroke-width": r / 5 }];
    }),
  ];
  const house = (x, y, s) => [
    ["rect", { x, y, width: s, height: s * 0.8, fill: "#8a6a4f" }],
    ["polygon", { points: `${x - s * 0.1},${y} ${x + s / 2},${y - s * 0.5} ${x + s * 1.1},${y}`, fill: "#5b3a29" }],
  ];
  const tree = (x, y, s) => [
    ["rect", { x: x - s * 0.08, y, width: s * 0.16, height: s * 0.5, fill: "#5b4632" }],
    ["polygon", { points: `${x - s * 0.4},${y} ${x},${y - s} ${x + s * 0.4},${y}`, fill: "#2f6b3a" }],
  ];
  const whole = [...scene("#a8cde8", "#7fae62"), ...house(58, 50, 28), ...ball(28, 62, 17)];
  const covered = (x, y, colour) => [...whole, ["rect", { x, y, width: 40, height: 40, fill: colour }]];

  const EXAMPLES = {
    favourites: () => [
      element(
        "div",
        { class: "example-grid" },
        svg([...scene("#a8cde8", "#7fae62"), ...tree(75, 66, 40), ...ball(35, 66, 20)], "A striped ball beside a tree"),
        svg([...scene("#e9d8b4", "#c9a86a"), ...ball(62, 45, 26)], "A large striped ball on sand"),
        svg([...scene("#465a86", "#39424e"), ...house(12, 52, 30), ...ball(68, 74, 15)], "A striped ball before a house at night"),
      ),
    ],
    queries: () => [
      element(
        "div",
        { class: "example-pair" },
        element("div", {}, svg(whole, "A striped ball and a house"), "the favourite picture"),
        element("div", {}, svg(covered(8, 44, "#b08a63"), "Left copy: the square covers the ball"), "left copy"),
        element("div", {}, svg(covered(55, 30, "#99a08c"), "Right copy: the square covers the house"), "right copy"),
      ),
    ],
    buttons: () => [
      element(
        "div",
        { class: "example-buttons", role: "img", "aria-label": "Six buttons: 3, 2, 1 below the left copy, 1, 2, 3 below the right copy" },
        ...["left", "right"].map((side, i) =>
          element(
            "div",
            { "aria-hidden": "true" },
            ...CONFIDENCE.slice(3 * i, 3 * i + 3).map((number, j) =>
              element("span", { class: "answer" }, String(number), element("kbd", {}, KEYS[3 * i + j].toUpperCase())),
            ),
          ),
        ),
      ),
    ],
  };

  // ---------------------------------------------------------------------------------------------- plugins

  /** A screen of text with buttons; Enter is the last of them. Its data: the index of the button, and what was written. */
  class Screen {
    static info = {
      name: "screen",
      version: "1.0.0",
      parameters: {
        show: { type: ParameterType.FUNCTION, default: undefined },
        buttons: { type: ParameterType.STRING, array: true, default: ["Continue"] },
        act: { type: ParameterType.FUNCTION, default: null },
      },
      data: { button: { type: ParameterType.INT }, words: { type: ParameterType.STRING } },
    };

    constructor(jsPsych) {
      this.jsPsych = jsPsych;
    }

    trial(display, trial) {
      const card = element("section", { class: "card" }, trial.show());
      const buttons = trial.buttons.map((label, i) => {
        const button = element("button", { type: "button", class: i === trial.buttons.length - 1 ? "go" : "" }, label);
        button.addEventListener("click", () => {
          // A screen that acts stays.
          if (trial.act) return trial.act(i);
          document.removeEventListener("keydown", onKey);
          return this.jsPsych.finishTrial({ button: i, words: display.querySelector("textarea")?.value ?? null });
        });
        return button;
      });
      if (buttons.length) card.append(element("div", { class: "buttons" }, ...buttons));
      display.replaceChildren(card);
      const onKey = (event) => {
        if (event.key !== "Enter" || event.repeat || event.target.closest("button, textarea, summary, a")) return;
        event.preventDefault();
        buttons.at(-1)?.click();
      };
      document.addEventListener("keydown", onKey);
      const heading = card.querySelector("h1");
      heading.tabIndex = -1;
      heading.focus();
    }
  }

  /** A task: favourites, a picture, two copies of it, six buttons, Continue. Its data: an answer of the file that is saved. */
  class Choice {
    static info = {
      name: "choice",
      version: "1.0.0",
      parameters: {
        item: { type: ParameterType.OBJECT, default: undefined },
        title: { type: ParameterType.STRING, default: "" },
        round: { type: ParameterType.INT, default: 0 },
        begun: { type: ParameterType.FUNCTION, default: () => {} },
      },
      data: { answer: { type: ParameterType.OBJECT }, right: { type: ParameterType.BOOL } },
    };

    constructor(jsPsych) {
      this.jsPsych = jsPsych;
    }

    trial(display, trial) {
      const { item } = trial;
      const picture = (stimulus, alt) => element("img", { src: `img/${stimulus}.png`, alt, draggable: "false" });
      const heading = element("h1", {}, "Which of the two lower pictures does the machine favour more?");
      heading.tabIndex = -1;
      const sides = ["left", "right"].map((side, i) => {
        const name = side === "left" ? "Left" : "Right";
        const frame = element("div", { class: "frame" }, picture(item[side], `${name} copy, with a square covered`));
        const buttons = CONFIDENCE.slice(3 * i, 3 * i + 3).map((number, j) =>
          element(
            "button",
            {
              type: "button",
              class: "answer",
              "aria-pressed": "false",
              "aria-keyshortcuts": KEYS[3 * i + j].toUpperCase(),
              "aria-label": `${name} copy, confidence ${number} of 3, ${SURE[number]}`,
            },
            String(number),
            element("kbd", { "aria-hidden": "true" }, KEYS[3 * i + j].toUpperCase()),
          ),
        );
        return { frame, buttons, box: element("div", { class: "side" }, frame, element("div", { class: "answers", role: "group", "aria-label": `${name} copy` }, ...buttons)) };
      });
      const status = element("p", { class: "status", role: "status" });
      const go = element("button", { type: "button", class: "go" }, "Continue");
      go.hidden = true;
      const references = item.references.map((stimulus, i) =>
        picture(stimulus, `Favourite picture ${i + 1} of ${item.references.length}`),
      );
      const stage = element(
        "section",
        { class: references.length ? "task" : "task alone" },
        element("header", {}, element("p", { class: "count" }, trial.title), heading),
        ...(references.length
          ? [element("figure", { class: "references" }, element("figcaption", {}, "Favourite pictures of the machine"), element("div", { class: "grid" }, ...references))]
          : []),
        element(
          "div",
          { class: "work" },
          element("figure", { class: "base" }, element("figcaption", {}, references.length ? "Another favourite picture" : "A favourite picture of the machine"), picture(item.base, "The whole picture, nothing covered")),
          element("div", { class: "sides" }, ...sides.map((side) => side.box)),
          element("p", { class: "scale" }, "3 sure, 2 fairly sure, 1 a guess"),
          element("div", { class: "after" }, status, go),
        ),
      );
      const buttons = sides.flatMap((side) => side.buttons);
      display.replaceChildren(stage);
      heading.focus();

      let shown = null;
      let answer = null;
      const choose = (button) => {
        if (answer || shown === null) return;
        const milliseconds = Math.max(1, Math.round(performance.now() - shown));
        const at = button < 3 ? 0 : 1;
        const chosen = item[["left", "right"][at]];
        answer = { trial: item.id, left: item.left, right: item.right, button, milliseconds, round: trial.round };
        sides[at].frame.classList.add("chosen");
        buttons.forEach((other, i) => {
          other.setAttribute("aria-disabled", "true");
          other.setAttribute("aria-pressed", String(i === button));
        });
        const words = `You chose the ${["left", "right"][at]} picture, ${SURE[CONFIDENCE[button]]}.`;
        if (item.answer) {
          const right = chosen === item.answer;
          stage.classList.add(right ? "was-right" : "was-wrong");
          const favoured = item.answer === item.left ? "left" : "right";
          status.textContent = `${right ? "✓ Right." : "✗ Wrong."} The machine favours the ${favoured} picture more.`;
        } else {
          status.textContent = words;
        }
        this.jsPsych.pluginAPI.setTimeout(() => {
          go.hidden = false;
          go.focus();
        }, PAUSE);
      };
      const onKey = (event) => {
        if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
        if (event.key === "Enter" && !go.hidden && event.target !== go) {
          event.preventDefault();
          go.click();
        }
        let button = KEYS.indexOf(event.key.toLowerCase());
        // Where the keyboard has other letters, the places of these count.
        if (button < 0) button = KEYS.indexOf(event.code.replace("Key", "").toLowerCase());
        if (button >= 0) choose(button);
      };
      buttons.forEach((button, i) => button.addEventListener("click", () => choose(i)));
      document.addEventListener("keydown", onKey);
      go.addEventListener("click", () => {
        if (go.hidden) return;
        document.removeEventListener("keydown", onKey);
        this.jsPsych.finishTrial({ answer, right: item.answer ? item[answer.button < 3 ? "left" : "right"] === item.answer : null });
      });

      // Time runs from the moment when every picture is there.
      Promise.all([...stage.querySelectorAll("img")].map((image) => image.decode())).then(
        () =>
          requestAnimationFrame(() => {
            stage.classList.add("shown");
            shown = performance.now();
            trial.begun(shown);
          }),
        () => {
          status.textContent = "A picture is missing: the page's folder is not whole. Please tell whoever gave it to you.";
          stage.classList.add("shown");
        },
      );
    }
  }

  // ---------------------------------------------------------------------------------------------- the session

  /** Who answers what: by the address (?condition=natural&task=7&participant=...), by what the browser kept, or by chance. */
  function assignment() {
    const asked = new URLSearchParams(location.search);
    const known = (name) => asked.get(name) ?? null;
    // What was kept is of one participant.
    const stored = kept.read();
    const before = known("participant") === null || known("participant") === stored.participant ? stored : {};
    const condition = known("condition") ?? before.condition ?? given.conditions[random(given.conditions.length)];
    if (!given.conditions.includes(condition)) {
      throw new Error(`Its address asks for the condition "${condition}"; there are ${given.conditions.join(", ")}.`);
    }
    const count = given.tasks[condition].length;
    const same = before.condition === condition && before.task < count;
    const task = known("task") ?? String(same ? before.task : random(count));
    if (!/^\d{1,6}$/.test(task) || Number(task) >= count) {
      throw new Error(`Its address asks for task "${task}"; tasks are 0 to ${count - 1}.`);
    }
    const participant = known("participant") ?? before.participant ?? hex();
    if (!/^[\w.@-]{1,64}$/.test(participant)) {
      throw new Error("A participant in the address is 1 to 64 letters, digits or any of . @ _ -");
    }
    const finished = before.finished === true && before.participant === participant;
    return { condition, task: Number(task), participant, finished };
  }

  /** A task with its sides; sides: the indices of the pair that are left and right. */
  function item(index, flip, answer = null) {
    const { id, base, pair, references } = given.trials[index];
    return { id, base, references, left: pair[flip], right: pair[1 - flip], answer };
  }

  const number = (count) => `${count} task${count === 1 ? "" : "s"}`;

  async function main() {
    const jsPsych = initJsPsych({
      display_element: "stage",
      show_progress_bar: true,
      auto_update_progress_bar: false,
      message_progress_bar: "",
      use_webaudio: false,
      override_safe_mode: true, // what it warns of on file: is sound and video
      on_close: (event) => {
        if (running) event.preventDefault();
      },
    });
    let running = false;
    const only = (name, fill, buttons = [], act = null) => jsPsych.run([{ type: Screen, show: () => text(name, fill), buttons, act }]);

    let who;
    try {
      who = assignment();
    } catch (error) {
      return only("wrong", { reason: error.message });
    }
    if (who.finished) {
      return only("taken", {}, ["I am somebody else"], () => {
        kept.write({});
        location.reload();
      });
    }
    kept.write({ condition: who.condition, task: who.task, participant: who.participant });

    const plan = given.tasks[who.condition][who.task];
    const session = {
      study: given.study,
      page: given.page,
      condition: who.condition,
      task: who.task,
      participant: who.participant,
      session: hex(),
      started: new Date().toISOString(),
      window: [innerWidth, innerHeight],
      milliseconds: 0,
      instruction_milliseconds: 0,
      answers: [],
      comment: "",
    };
    const opened = performance.now();
    let first = null;
    const begun = (moment) => {
      first ??= moment;
    };
    const progress = (share) => {
      jsPsych.progressBar.progress = Math.min(1, share);
      const bar = document.getElementById("jspsych-progressbar-outer");
      bar.setAttribute("role", "progressbar");
      bar.setAttribute("aria-label", "Progress");
      bar.setAttribute("aria-valuemin", "0");
      bar.setAttribute("aria-valuemax", "100");
      bar.setAttribute("aria-valuenow", String(Math.round(100 * Math.min(1, share))));
    };
    const record = (data) => session.answers.push(data.answer);

    // Practice: a pass is a fresh draw with fresh sides, until all are right in one pass.
    const size = Math.min(PRACTICE, plan.practice.length);
    let round = 1;
    let pass = [];
    let right = 0;
    const draw = () => {
      pass = shuffled(plan.practice).slice(0, size).map(([index, answer]) => item(index, random(2), answer));
      right = 0;
    };
    draw();

    const fill = { tasks: number(plan.main.length), practice: number(size) };
    const pages = [
      size ? "instructions-machine" : "instructions-machine-none",
      "instructions-question",
      "instructions-answer",
      size ? "instructions-practice" : "instructions-tasks",
    ];
    let at = 0;
    const instructions = {
      timeline: [
        {
          type: Screen,
          show: () => text(pages[at], fill),
          buttons: () => (at ? ["Back", "Continue"] : ["Continue"]),
          on_finish: (data) => {
            at += at && data.button === 0 ? -1 : 1;
            progress(0.01 + (0.04 * at) / pages.length);
          },
        },
      ],
      loop_function: () => at < pages.length,
    };
    const practice = {
      timeline: [
        ...Array.from({ length: size }, (_, i) => ({
          type: Choice,
          item: () => pass[i],
          title: () => `Practice, task ${i + 1} of ${size}`,
          round: () => round,
          begun,
          on_finish: (data) => {
            record(data);
            right += data.right;
            progress(0.05 + (0.15 * (i + 1)) / size);
          },
        })),
        {
          timeline: [{ type: Screen, show: () => text("again", fill) }],
          conditional_function: () => right < size,
        },
      ],
      loop_function: () => {
        if (right === size) return false;
        round += 1;
        draw();
        return true;
      },
    };
    const tasks = plan.main.map(([index, flip], i) => ({
      type: Choice,
      item: item(index, flip),
      title: `Task ${i + 1} of ${plan.main.length}`,
      begun,
      on_finish: (data) => {
        record(data);
        progress(0.2 + (0.75 * (i + 1)) / plan.main.length);
      },
    }));

    const saved = () => {
      const content = { format: FORMAT, version: VERSION, checksum: checksum(JSON.stringify(session)), session };
      return `${JSON.stringify(content, null, 1)}\n`;
    };
    const download = () => {
      const name = `occlusion-${session.study}-${session.session}.json`;
      const address = URL.createObjectURL(new Blob([saved()], { type: "application/json" }));
      const link = element("a", { href: address, download: name });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
      running = false;
      kept.write({ ...kept.read(), finished: true });
      document.getElementById("saved").textContent = `Saved as ${name}. You can close this page.`;
    };

    await jsPsych.run([
      {
        type: Screen,
        show: () => text("consent"),
        buttons: ["I agree and take part"],
        on_load: () => progress(0),
        on_finish: () => {
          running = true;
          progress(0.01);
        },
      },
      instructions,
      {
        type: Screen,
        show: () => text("screen"),
        buttons: ["Stay in the window", "Full screen"],
        on_finish: async (data) => {
          // Where the browser refuses, the study goes on in the window.
          if (data.button === 1) await document.documentElement.requestFullscreen?.().catch(() => {});
        },
      },
      ...(size ? [practice, { type: Screen, show: () => text("start", fill), buttons: ["Begin"] }] : []),
      ...tasks,
      {
        type: Screen,
        show: () => text("comment"),
        on_finish: async (data) => {
          // Lone halves of characters have no bytes of their own.
          session.comment = (data.words ?? "").replace(/\p{Surrogate}/gu, "");
          session.milliseconds = Math.round(performance.now() - opened);
          session.instruction_milliseconds = Math.round(first - opened);
          if (document.fullscreenElement) await document.exitFullscreen().catch(() => {});
          progress(1);
        },
      },
      {
        type: Screen,
        show: () => {
          const content = text("end");
          content.getElementById("text").value = saved();
          return content;
        },
        buttons: ["Save my answers"],
        act: download,
      },
    ]);
  }

  main();
})();
