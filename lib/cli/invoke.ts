// `rfaas invoke`: lease, deploy, call, release, in one command.
import { readFile, writeFile } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { Command, Option } from 'commander'

import type { Functions } from '../client/functions.js'
import { CommandError } from './failure.js'
import { showTime, summarize } from './latency.js'
import { bytes, duration, integer, withTarget, type Target } from './options.js'
import { note, paint, print } from './output.js'
import { interruptible } from './signals.js'

interface Flags extends Target {
  input?: string
  output: string
  repeat?: number
  timeout: number
  cores: number
  memory: number
  maxOutput: number
  provider?: 'shm' | 'verbs'
  node?: string
}

const maxRepeat = 10_000_000
const maxTimeoutMs = 3_600_000
const maxWarmUp = 10_000
// A call that blocks the thread for longer would make Ctrl-C wait.
const maxBlockingMs = 20
const yieldIntervalMs = 50
// Enough for --repeat, whose calls come one by one; the lease renews itself.
const leaseDuration = '1m'
// The least that a slot of a worker takes.
const minPayload = 64

export function invokeCommand(): Command {
  return withTarget(new Command('invoke'))
    .description('call a function once on cores that are leased for it')
    .argument('<package>', 'a shared library (.so) or an ES module (.mjs)')
    .argument('<function>', 'one of its functions')
    .option(
      '-i, --input <file>',
      "what the function gets, '-' is standard input (default: nothing)",
    )
    .option('-o, --output <file>', "where the result goes, '-' is standard output", '-')
    .option(
      '-r, --repeat <count>',
      'measure so many calls; the last result is kept',
      integer(1, maxRepeat),
    )
    .addOption(
      new Option('--timeout <time>', 'for each call').default(30_000, '30s').argParser((text) => {
        const milliseconds = duration(text)
        return integer(1, maxTimeoutMs)(String(milliseconds))
      }),
    )
    .addOption(new Option('--cores <count>', 'to lease').default(1).argParser(integer(1, 4096)))
    .addOption(
      new Option('--memory <size>', 'to lease').default(512 * 2 ** 20, '512MiB').argParser(bytes),
    )
    .addOption(
      new Option('--max-output <size>', 'longest result').default(2 ** 20, '1MiB').argParser(bytes),
    )
    .addOption(
      new Option('--provider <fabric>', 'default: shm on the same host, else verbs').choices([
        'shm',
        'verbs',
      ]),
    )
    .option('--node <name>', 'only on this node')
    .addHelpText(
      'after',
      `
Only the result goes to standard output. Ctrl-C releases the lease.

Examples:
  printf world | rfaas invoke hello.so hello --input -
  rfaas invoke thumbnail.mjs thumbnail --input photo.jpg --output small.jpg
  printf 12345678 | rfaas invoke hello.so echo --input - --repeat 100000 >/dev/null`,
    )
    .action((path: string, name: string, flags: Flags) =>
      interruptible((signal) => invoke(path, name, flags, signal)),
    )
}

async function invoke(
  path: string,
  name: string,
  flags: Flags,
  signal: AbortSignal,
): Promise<void> {
  const input = await abortable(readInput(flags.input), signal)
  const { connect } = await import('./connect.js')
  const client = await abortable(connect(flags), signal)
  try {
    const { cores, memory, node } = flags
    const start = performance.now()
    // Not abandoned when interrupted: only a lease that we know of can be released.
    const lease = await client.lease({
      cores,
      memory,
      duration: leaseDuration,
      ...(node === undefined ? {} : { node }),
      deploy: {
        path,
        payload: Math.max(minPayload, input.byteLength),
        output: Math.max(minPayload, flags.maxOutput),
        slots: 1,
        ...(flags.provider === undefined ? {} : { provider: flags.provider }),
      },
    })
    signal.throwIfAborted()
    const leased = performance.now()
    const functions = await abortable(lease.deploy(), signal)
    const deployed = performance.now()
    let result = await functions.invoke(name, input, { timeoutMs: flags.timeout, signal })
    const called = performance.now()
    if (flags.repeat !== undefined) {
      note(
        `lease ${showTime(leased - start)}, deployment ${showTime(deployed - leased)}, ` +
          `first call ${showTime(called - deployed)}`,
      )
      const blocking = called - deployed <= maxBlockingMs
      result = await measure(functions, { name, input, flags, blocking, signal })
    }
    await abortable(writeResult(result, flags.output), signal)
  } finally {
    await client.close()
  }
}

interface Measurement {
  name: string
  input: Uint8Array
  flags: Flags
  blocking: boolean
  signal: AbortSignal
}

/** The last result. Reports the round trips on standard error. */
async function measure(functions: Functions, measurement: Measurement): Promise<Uint8Array> {
  const { name, flags, blocking, signal } = measurement
  const repeat = flags.repeat ?? 1
  const options = { timeoutMs: flags.timeout }
  const input = functions.allocate(Math.max(1, measurement.input.byteLength))
  input.set(measurement.input)
  const payload = input.subarray(0, measurement.input.byteLength)
  const output = functions.allocate(Math.max(minPayload, flags.maxOutput))

  let result = output.subarray(0, 0)
  const once = async (): Promise<number> => {
    const start = performance.now()
    result = await functions.invoke(name, payload, { ...options, signal })
    return performance.now() - start
  }
  const onceBlocking = (): number => {
    const start = performance.now()
    const length = functions.invokeSync(name, payload, output, options)
    const elapsed = performance.now() - start
    result = output.subarray(0, length)
    return elapsed
  }

  const warmUp = Math.min(maxWarmUp, Math.ceil(repeat / 10))
  const samples = new Float64Array(repeat)
  let yielded = performance.now()
  for (let i = -warmUp; i < repeat; ++i) {
    const elapsed = blocking ? onceBlocking() : await once()
    if (i >= 0) samples[i] = elapsed
    if (performance.now() - yielded < yieldIntervalMs) continue
    await setImmediate()
    signal.throwIfAborted()
    yielded = performance.now()
  }

  const { minMs, p50Ms, p99Ms, maxMs } = summarize(samples)
  const bold = (text: string): string => paint('bold', text, process.stderr)
  note(
    `${repeat} ${blocking ? 'hot' : 'awaited'} round trips, ${payload.byteLength} bytes in, ` +
      `${result.byteLength} bytes out (after ${warmUp} to warm up)`,
  )
  note(
    `${bold(`p50 ${showTime(p50Ms)}   p99 ${showTime(p99Ms)}`)}   ` +
      `min ${showTime(minMs)}   max ${showTime(maxMs)}`,
  )
  return result.slice()
}

/** Stops waiting when the user interrupts. What was begun ends with the lease. */
async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  let onAbort: (() => void) | undefined
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort)
  }
}

async function readInput(path: string | undefined): Promise<Uint8Array> {
  if (path === undefined) return new Uint8Array(0)
  try {
    if (path !== '-') return await readFile(path)
    const chunks: Buffer[] = []
    for await (const chunk of process.stdin as AsyncIterable<Buffer>) chunks.push(chunk)
    return Buffer.concat(chunks)
  } catch (cause) {
    throw new CommandError(`the input cannot be read: ${(cause as Error).message}`, { cause })
  }
}

async function writeResult(result: Uint8Array, path: string): Promise<void> {
  try {
    if (path !== '-') return await writeFile(path, result)
    await print(result)
  } catch (cause) {
    throw new CommandError(`the result cannot be written: ${(cause as Error).message}`, { cause })
  }
  // On a terminal the prompt begins on a line of its own.
  if (process.stdout.isTTY && result.at(-1) !== 10) process.stderr.write('\n')
}
