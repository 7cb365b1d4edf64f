// Functions that go wrong by themselves.
import assert from 'node:assert/strict'
import { once } from 'node:events'

import type { Functions } from '../../../lib/index.js'
import { invoke, summary, word, type Outcome } from '../calls.js'
import { nativePackage, nodePackage } from '../packages.js'
import type { Scenario } from '../scenario.js'

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
    message: /deadline/,
    fatal: true,
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
    message: /deadline/,
    fatal: true,
  },
]

export const functions: Scenario[] = wrongs.map((wrong) => ({
  name: wrong.name,
  fault: wrong.fault,
  promise: wrong.promise,
  ...(wrong.recoversWithinMs !== undefined && { recoversWithinMs: wrong.recoversWithinMs }),
  async run(stage) {
    const { functions, lease } = await stage.deployed({ package: wrong.package() })
    const times: number[] = []
    let last: Outcome | undefined
    // The middle of three: what else this machine does is not part of the promise.
    for (let round = 0; round < 3; round += 1) {
      const ready = wrong.fatal ? once(lease, 'workerReady') : undefined
      const call = invoke(functions, wrong.function, word(1), { timeoutMs: 400 })
      // They are on both workers, one behind the fault: that one may be lost with it.
      const others = Array.from({ length: 3 }, () =>
        invoke(functions, 'echo', word(round), { timeoutMs: 5000 }),
      )
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
    const recoveredMs = times.sort((a, b) => a - b)[1]!
    return { seen: `${last!.code}: ${last!.message}`, ...(wrong.fatal && { recoveredMs }) }
  },
}))

function echoes(functions: Functions): Promise<Outcome[]> {
  return Promise.all(
    Array.from({ length: 8 }, (_, i) => invoke(functions, 'echo', word(i), { timeoutMs: 5000 })),
  )
}
