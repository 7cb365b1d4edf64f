// Functions that go wrong by themselves.
import assert from 'node:assert/strict'
import { once } from 'node:events'

import type { Functions } from '../../../lib/index.js'
import { invoke, patienceMs, recovered, summary, Traffic, word, type Outcome } from '../calls.js'
import { nativePackage, nodePackage } from '../packages.js'
import type { Scenario } from '../scenario.js'
import { deployOptions } from '../stage.js'

interface Wrong {
  name: string
  fault: string
  promise: string
  package: () => string
  function: string
  code: string
  message: RegExp
  /** It takes its worker with it. */
  fatal: boolean
  /** Of its call; by default it is not the deadline that ends it. */
  timeoutMs?: number
  recoversWithinMs?: number
}

const back = 'the other worker’s calls go on, a new worker takes its place.'
const nativeMs = 100

const wrongs: Wrong[] = [
  {
    name: 'function-crashes',
    fault: 'a function crashes (SIGSEGV)',
    promise: `Its call ends with ERR_RFAAS_WORKER_LOST and the signal; ${back}`,
    package: nativePackage,
    function: 'crash',
    code: 'ERR_RFAAS_WORKER_LOST',
    message: /SIGSEGV/,
    fatal: true,
    recoversWithinMs: nativeMs,
  },
  {
    name: 'function-exits',
    fault: 'a function calls exit()',
    promise: `Its call ends with ERR_RFAAS_WORKER_LOST and the cause; ${back}`,
    package: nativePackage,
    function: 'exit',
    code: 'ERR_RFAAS_WORKER_LOST',
    message: /called exit/,
    fatal: true,
    recoversWithinMs: nativeMs,
  },
  {
    name: 'function-overruns-output',
    fault: 'a function writes past its output',
    promise: `Its call ends with ERR_RFAAS_WORKER_LOST and SIGSEGV, no other result is touched; ${back}`,
    package: nativePackage,
    function: 'overrun',
    code: 'ERR_RFAAS_WORKER_LOST',
    message: /SIGSEGV/,
    fatal: true,
    recoversWithinMs: nativeMs,
  },
  {
    name: 'function-loops',
    fault: 'a function loops for ever',
    promise: `Its call ends at its deadline with ERR_RFAAS_DEADLINE; ${back}`,
    package: nativePackage,
    function: 'loop',
    code: 'ERR_RFAAS_DEADLINE',
    // Of the worker's watchdog, or of the client's own, should that be late.
    message: /deadline|no answer within/,
    fatal: true,
    timeoutMs: 400,
    recoversWithinMs: nativeMs,
  },
  {
    name: 'function-fails',
    fault: 'a native function returns an error',
    promise: 'Its call ends with ERR_RFAAS_FUNCTION and its own message; the worker goes on.',
    package: nativePackage,
    function: 'fails',
    code: 'ERR_RFAAS_FUNCTION',
    message: /the matrix is singular/,
    fatal: false,
  },
  {
    name: 'function-throws',
    fault: 'a JavaScript function throws',
    promise:
      'Its call ends with ERR_RFAAS_FUNCTION and the message of the exception; the worker goes on.',
    package: () => nodePackage,
    function: 'throws',
    code: 'ERR_RFAAS_FUNCTION',
    message: /the matrix is singular/,
    fatal: false,
  },
  {
    name: 'node-function-exits',
    fault: 'a JavaScript function calls process.exit()',
    promise: `Its call ends with ERR_RFAAS_WORKER_LOST and the cause; ${back}`,
    package: () => nodePackage,
    function: 'exit',
    code: 'ERR_RFAAS_WORKER_LOST',
    message: /process\.exit\(4\)/,
    fatal: true,
  },
  {
    name: 'node-function-loops',
    fault: 'a JavaScript function loops for ever',
    promise: `Its call ends at its deadline with ERR_RFAAS_DEADLINE; ${back}`,
    package: () => nodePackage,
    function: 'loop',
    code: 'ERR_RFAAS_DEADLINE',
    // Of the worker's watchdog, or of the client's own, should that be late.
    message: /deadline|no answer within/,
    fatal: true,
    timeoutMs: 400,
  },
]

const alone: Scenario[] = wrongs.map((wrong) => ({
  name: wrong.name,
  fault: wrong.fault,
  promise: wrong.promise,
  ...(wrong.recoversWithinMs !== undefined && { recoversWithinMs: wrong.recoversWithinMs }),
  async run(stage) {
    const { functions, lease } = await stage.deployed({ package: wrong.package() })
    const times: number[] = []
    let last: Outcome | undefined
    // The least of three: what else this machine does is not part of the promise.
    for (let round = 0; round < 3; round += 1) {
      const ready = wrong.fatal ? once(lease, 'workerReady') : undefined
      const { timeoutMs = patienceMs } = wrong
      const call = invoke(functions, wrong.function, word(1), { timeoutMs })
      // They are on both workers, one behind the fault: that one may be lost with it.
      const others = Array.from({ length: 3 }, () => invoke(functions, 'echo', word(round)))
      last = await call
      const ended = performance.now()
      assert.equal(last.code, wrong.code, last.message)
      assert.match(last.message, wrong.message)
      await ready
      times.push(performance.now() - ended)
      const lost = (await Promise.all(others)).filter(({ code }) => code !== 'ok')
      assert(lost.length <= (wrong.fatal ? 1 : 0), summary(lost))
      assert.equal(summary(await echoes(functions)), '8 ok')
    }
    const recoveredMs = Math.min(...times)
    return { seen: `${last!.code}: ${last!.message}`, ...(wrong.fatal && { recoveredMs }) }
  },
}))

/** Calls `allocate` until one is lost; which one, and how it ended. */
async function exhaust(
  functions: Functions,
  mebibytes: number,
): Promise<{ calls: number; outcome: Outcome }> {
  for (let calls = 1; calls <= 64; calls += 1) {
    const outcome = await invoke(functions, 'allocate', word(mebibytes))
    if (outcome.code !== 'ok') return { calls, outcome }
  }
  throw new Error(`64 calls took ${mebibytes} MiB each, and none was lost`)
}

function hoarding(name: string, fault: string, mebibytes: number): Scenario {
  return {
    name,
    fault,
    promise:
      'The kernel ends a worker of this lease and no other; its call ends with ERR_RFAAS_WORKER_LOST or ERR_RFAAS_FUNCTION, a new worker takes its place; other leases go on.',
    needs: 'cgroups',
    async run(stage) {
      const one = { cores: 1, memory: '128MiB', duration: '5m' }
      const { client, functions } = await stage.deployed({ lease: one })
      const other = await (await stage.lease(client, one)).deploy(nativePackage(), deployOptions)
      const traffic = new Traffic(other)
      const { calls, outcome } = await exhaust(functions, mebibytes)
      assert.match(outcome.code, /^ERR_RFAAS_(WORKER_LOST|FUNCTION)$/, outcome.message)
      const recoveredMs = await recovered(functions)
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      const seen = `call ${calls}: ${outcome.message}; ${answered} ok of another lease`
      return { seen, recoveredMs }
    },
  }
}

export const functions: Scenario[] = [
  ...alone,
  hoarding('function-allocates', 'a function takes more memory than its lease has', 1024),
  hoarding('function-leaks', 'a function leaks, 16 MiB a call', 16),
]

function echoes(functions: Functions): Promise<Outcome[]> {
  return Promise.all(Array.from({ length: 8 }, (_, i) => invoke(functions, 'echo', word(i))))
}
