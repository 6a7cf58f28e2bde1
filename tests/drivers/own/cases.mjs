// Runs the cases of one Node.js driver and prints a line for each: driver, case, pass or FAIL, why.
// The same contract as cases.py: a case fails by throwing, and it has a time limit.

import path from "node:path";
import { isDeepStrictEqual, inspect } from "node:util";

export const LIMIT_SECONDS = 60;

export function equal(got, wanted, what) {
  if (!isDeepStrictEqual(got, wanted)) {
    throw new Error(`${what}: got ${shorten(got)}, wanted ${shorten(wanted)}`);
  }
}

export function check(condition, what) {
  if (!condition) throw new Error(what);
}

/** Fails unless the promise is rejected with this SQLSTATE; gives the error. */
export async function raises(sqlstate, promise, what) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    equal(error.code, sqlstate, `${what}: SQLSTATE of "${error.message}"`);
    return error;
  }
  throw new Error(`${what}: no error but ${shorten(value)}, wanted SQLSTATE ${sqlstate}`);
}

/** Calls every case, or those named on the command line, and ends the process: 0 if all passed, else 1. */
export async function run(driver, cases) {
  const wanted = process.argv.slice(3);
  let failed = 0;
  for (const [name, body] of Object.entries(cases)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    const started = performance.now();
    try {
      await limited(body());
      report(driver, name, "pass", `${((performance.now() - started) / 1000).toFixed(2)} s`);
    } catch (error) {
      failed += 1;
      report(driver, name, "FAIL", describe(error));
    }
  }
  process.exit(failed > 0 ? 1 : 0);
}

export function databaseUrl() {
  if (process.argv.length < 3) {
    console.error(`usage: node ${process.argv[1]} DATABASE_URL [CASE...]`);
    process.exit(2);
  }
  return process.argv[2];
}

function limited(promise) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end after ${LIMIT_SECONDS} s`)), LIMIT_SECONDS * 1000);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

function describe(error) {
  const script = path.basename(process.argv[1]);
  const line = (error.stack ?? "").match(new RegExp(`${script.replace(".", "\\.")}:(\\d+)`))?.[1] ?? "?";
  const code = error.code ? ` ${error.code}` : "";
  return `${error.name}${code}: ${error.message.split(/\s+/).join(" ")} (${script}:${line})`;
}

function report(...columns) {
  console.log(columns.join("\t"));
}

function shorten(value) {
  const text = inspect(value, { breakLength: Infinity, maxStringLength: 200, maxArrayLength: 20 });
  return text.length <= 400 ? text : `${text.slice(0, 400)}...`;
}
