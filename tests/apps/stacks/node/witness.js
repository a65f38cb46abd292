// Calls its way through functions of many kinds, tells the calls of its stack as V8 tells them, and
// waits in a read. When told to go on, it makes garbage, collects it, and waits again.
// Arguments: how often it calls before, for V8's compilers; `early` if it asks for a trace before.
'use strict';

const fs = require('fs');

const [rounds, early] = process.argv.slice(2);
const buffer = Buffer.alloc(1);
const kept = [];
let mode = 'silent';

Error.stackTraceLimit = Infinity;
Error.prepareStackTrace = (error, sites) => {
  const called = sites.filter((site) => !site.isAsync() && site.getLineNumber());
  // What is named at run time has its name in no function.
  const isNamed = (name) => name && !name.startsWith('[');
  const named = (name) => (isNamed(name) ? name : '<anonymous>');
  return called.map((site) => {
    return `${named(site.getFunctionName())}:${site.getLineNumber()}:${site.getFileName()}`;
  });
};

function wait() {
  if (mode === 'silent') return 1;
  const calls = new Error().stack; if (mode === 'wait') pause(calls); return 1;
}

function pause(calls) {
  mode = 'silent';
  console.log(`calls ${calls.join('|')}`);
  fs.readSync(0, buffer);
}

class Shelf {
  #count = 0;
  constructor(depth) { this.answer = this.take(depth); }
  take(depth) { return depth > 0 ? this.take(depth - 1) : this.step((value) => value + wait()); }
  step(then) {
    const [first] = [1].map((value) => then(value));
    return this.#add(first);
  }
  #add(value) { this.#count += value; return value; }
  get latest() { return new Shelf(1).answer; }
  static [Symbol.iterator]() { return [new Shelf(2).latest][Symbol.iterator](); }
}

const table = { look: (key) => [...Shelf].length + key };
exports.find = function (key) { return table['look'](key); };

function* numbers() {
  for (let i = 0; i < 2; i++) yield exports.find(i);
}

const sum = () => {
  let total = 0;
  for (const number of numbers()) total += number;
  return total;
};

function outer(number) {
  try {
    return sum(number);
  } finally {
    number += 1;
  }
}

// More variables than a scope's description names itself.
const variables = Array.from({ length: 80 }, (_, i) => `v${i}`);
const many = eval(`(function many(f) {
  let ${variables.join(', ')};
  const keep = () => [${variables.join(', ')}];
  keep();
  return f(1);
})`);

async function later() {
  await null;
  return many(outer);
}

function garbage() {
  for (let i = 0; i < 3000; i++) {
    kept.push(Array.from({ length: 1000 }, (_, j) => () => i + j));
    if (i % 3) kept.length = 0;
  }
}

(async () => {
  if (early) {
    mode = 'trace';
    await later();
    mode = 'silent';
  }
  for (let i = 0; i < Number(rounds); i++) await later();
  mode = 'wait';
  await later();
  garbage();
  console.log('collected');
  fs.readSync(0, buffer);
})();
