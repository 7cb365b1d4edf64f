// A worker for functions in JavaScript: one process, one core, one connection. Started by the
// executor manager, configured on stdin, reporting on file descriptor 3 (manager-link.ts); `--go-fd=N` as
// of the native worker. A function package is an ES module; each function that it exports can be called.
import { pathToFileURL } from 'node:url'
import { Channel } from './channel.js'
import { describe, exportedFunctions } from './invoke.js'
import { listenToManager, sendEvent } from './manager-link.js'
import { CallServer } from './serve.js'

// As of the native worker.
const timedOut = 124

async function main(): Promise<void> {
  let stopEarly = true
  let stop = (): void => process.exit(0)
  let draining = false
  let drain = (): void => void (draining = true)
  // From now on a manager that is killed takes us along, also while the package is being loaded.
  const goFd = goFdOf(process.argv[2])
  const configuration = await listenToManager({ drain: () => drain(), stop: () => stop() }, goFd)

  const url = pathToFileURL(configuration.package).href
  const module = (await import(url).catch((error: unknown) => {
    throw new Error(`the package cannot be loaded: ${describe(error)}`)
  })) as Readonly<Record<string, unknown>>
  const functions = exportedFunctions(module)
  const names = functions.map(([name]) => name)
  if (names.length === 0) throw new Error('the package cannot be loaded: it exports no function')
  const long = names.find((name) => Buffer.byteLength(name) > 127)
  if (long !== undefined)
    throw new Error(`function ${long.slice(0, 40)}... has a name of over 127 bytes`)

  const refusals = new Set<string>()
  const channel = new Channel(configuration, names, {
    connected: () => {
      server.connected()
      sendEvent({ event: 'connected' })
    },
    disconnected: () => {
      server.disconnected()
      sendEvent({ event: 'disconnected' })
    },
    refused: (reason) => {
      if (refusals.has(reason) || refusals.size >= 16) return
      refusals.add(reason)
      sendEvent({ event: 'refused', reason })
    },
  })
  const server = new CallServer(channel, {
    worker: configuration.worker,
    hotTimeoutUs: configuration.hotTimeoutUs,
    functions,
    overdue: (name, requestId) => {
      sendEvent({ event: 'timeout', function: name, requestId: String(requestId) })
      process.exit(timedOut)
    },
    stopped: () => {
      stopEarly = false
      channel.close()
      process.exit(0)
    },
  })
  // A function that calls process.exit() is told of by name, and its caller learns of it.
  process.on('exit', (code) => {
    if (!stopEarly || server.running === undefined) return
    sendEvent({ event: 'running', ...server.running })
    server.abandon(`the function ended its worker's process (process.exit(${code}))`)
  })
  process.on('uncaughtException', (error) => {
    const message = `the worker failed outside of a call: ${describe(error)}`
    server.abandon(message)
    fail(new Error(message))
  })
  stop = () => server.stop()
  drain = () => server.drain()
  if (draining) drain()
  server.start()
  sendEvent({ event: 'ready', address: channel.address, functions: names })
}

function goFdOf(argument: string | undefined): number | undefined {
  const [, fd] = /^--go-fd=(\d+)$/.exec(argument ?? '') ?? []
  return fd === undefined ? undefined : Number(fd)
}

/** Outside of every call: nothing says what state the functions are in now. */
function fail(error: unknown): void {
  sendEvent({ event: 'error', message: error instanceof Error ? error.message : describe(error) })
  process.exit(1)
}

await main().catch(fail)
