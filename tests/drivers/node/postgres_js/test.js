// In place of the suite's own, which leaves out all that comes behind a failure and gives most tests one second. Here
// each test runs, one after the other as there, and the file TOLD has a line for it: name, outcome, reason of a failure.

import fs from 'node:fs'
import { inspect } from 'node:util'
import { exec } from './bootstrap.js'

const SECONDS = 30
// What tests leave behind that fail.
const CLEAR = [
  'DROP SCHEMA IF EXISTS a CASCADE',
  'DROP SCHEMA IF EXISTS public CASCADE',
  'CREATE SCHEMA public AUTHORIZATION pg_database_owner',
  'DROP PUBLICATION IF EXISTS alltables',
]

const tests = []
let disturbed = () => {}

export const t = (name, options, body = options) => tests.push({ name, body })
// One that is left out, and one beside which all others are.
export const nt = (name) => tell(name, 'skipped')
export const ot = t

setImmediate(runAll)
process.on('unhandledRejection', onStray)
process.on('uncaughtException', onStray)

async function runAll() {
  for (const { name, body } of tests) {
    try {
      await run(body)
      tell(name, 'passed')
    } catch (error) {
      console.error(name, error)
      tell(name, 'failed', error instanceof Error ? `${error.code ?? ''} ${error.message}` : inspect(error))
      clear()
    }
  }
  process.exit()
}

async function run(body) {
  let timer
  const end = new Promise((_, reject) => {
    disturbed = reject
    timer = setTimeout(() => reject(new Error(`no end within ${SECONDS} seconds`)), SECONDS * 1000)
  })
  try {
    const [expected, got] = await Promise.race([end, Promise.resolve(body()).then((values) => Promise.all(values))])
    if (expected !== got) throw new Error(`${inspect(expected)} != ${inspect(got)}`)
  } finally {
    clearTimeout(timer)
  }
}

// An error that nobody waits for is the failure of the test that runs.
function onStray(error) {
  console.error('stray:', error)
  disturbed(error)
}

function clear() {
  try {
    const settings = ['-d', 'postgres_js_test', '-q', '-c', "SET lock_timeout = '5s'"]
    exec('psql', [...settings, ...CLEAR.flatMap((statement) => ['-c', statement])])
  } catch (error) {
    console.error('not cleared:', error)
  }
}

function tell(name, outcome, why = '') {
  const words = [name, outcome, why].map((word) => word.replace(/\s+/g, ' ').trim().slice(0, 300))
  fs.appendFileSync(process.env.TOLD, words.join('\t') + '\n')
}
