// The worker for function packages that are ES modules: a process started by the executor manager,
// configured on stdin and reporting on file descriptor 3, like the native executor. It ends when
// its stdin does: a manager that dies takes its workers along.
import { pathToFileURL } from 'node:url'

import { RfaasError } from '../../../lib/errors.js'
import { native } from '../../../lib/internal.js'
import { Calls, type NodeFunction } from './calls.js'
import { eventsFd, readConfiguration, report, type Configuration } from './manager.js'

/** What ended the process outside of any call is said once, in one sentence. */
function fatal(what: string, error: unknown): never {
  const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  report({ event: 'error', message: `${what}: ${reason}` })
  process.exit(1)
}

async function loadFunctions(path: string): Promise<Map<string, NodeFunction>> {
  const module = (await import(pathToFileURL(path).href)) as Record<string, unknown>
  const functions = Object.entries(module)
    .filter((entry): entry is [string, NodeFunction] => typeof entry[1] === 'function')
    .sort(([a], [b]) => (a < b ? -1 : 1))
  if (functions.length === 0) throw new RfaasError('ERR_RFAAS_PACKAGE', 'it exports no function')
  return new Map(functions)
}

function openWorker(configuration: Configuration, names: readonly string[]) {
  const { provider, device, address, ticket, slots, payloadBytes, outputBytes, core } =
    configuration
  return native.createWorker(
    {
      provider,
      device,
      address,
      ticket,
      slots,
      payloadBytes,
      outputBytes,
      functions: names,
      core,
      eventsFd,
    },
    (event, detail) => {
      if (event === 'refused') report({ event, reason: detail })
      else report({ event })
    },
  )
}

const { configuration, onStop } = await readConfiguration().catch((error: unknown) =>
  fatal('the configuration cannot be used', error),
)
const functions = await loadFunctions(configuration.package).catch((error: unknown) =>
  fatal('the package cannot be loaded', error),
)
let worker
try {
  worker = openWorker(configuration, [...functions.keys()])
} catch (error) {
  fatal('the worker cannot be opened', error)
}
const calls = new Calls(worker, functions, configuration)

process.on('uncaughtException', (error) => {
  calls.abandon(`the worker failed outside of a call: ${error.message}`)
  fatal('uncaught exception', error)
})
process.on('exit', (code) => {
  calls.abandon(`the function ended its worker's process (process.exit(${code}))`)
})
onStop(() => calls.stop())
process.on('SIGTERM', () => calls.stop())
process.on('SIGINT', () => calls.stop())

report({ event: 'ready', address: worker.address, functions: [...functions.keys()] })
await calls.run()
worker.close()
process.exit(0)
