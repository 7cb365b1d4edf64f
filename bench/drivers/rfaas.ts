// rfaas itself: a lease of some cores and the function on them.
import { appendFile, copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { extname, join } from 'node:path'

import { Client, type DeployOptions, type Functions } from '../../lib/index.js'
import { javascriptModule, nativePackages, type FunctionName } from '../functions/functions.js'
import type { AsyncOperation, Operation } from '../timing.js'
import { onAnswer } from './control-requests.js'
import type { Driver, Session, Step } from './driver.js'

type Calls = Pick<Session, 'operation' | 'use' | 'result'>

interface Way {
  description: string
  runtime: 'native' | 'node'
  calls: (functions: Functions, name: FunctionName) => Calls
  deploy?: DeployOptions
}

export const invokeSync = driver({
  description: 'invokeSync of a native function, both sides spin, registered memory',
  runtime: 'native',
  calls: spinning,
})

export const invoke = driver({
  description: 'awaited invoke of a native function, both sides spin',
  runtime: 'native',
  calls: awaited,
})

export const map = driver({
  description: 'map of a native function over many inputs, both sides spin',
  runtime: 'native',
  calls: mapped,
})

export const mapRecords = driver({
  description: 'mapRecords of a native function, both sides spin, registered memory',
  runtime: 'native',
  calls: inRecords,
})

export const warm = driver({
  description: 'awaited invoke of a native function, both sides sleep in between',
  runtime: 'native',
  calls: awaited,
  deploy: { hotTimeout: 0, hotWait: 0 },
})

export const nodeSync = driver({
  description: 'invokeSync of a JavaScript function, both sides spin, registered memory',
  runtime: 'node',
  calls: spinning,
})

export const nodeAwaited = driver({
  description: 'awaited invoke of a JavaScript function, both sides spin',
  runtime: 'node',
  calls: awaited,
})

export const nodeMap = driver({
  description: 'map of a JavaScript function over many inputs, both sides spin',
  runtime: 'node',
  calls: mapped,
})

// The smallest slot that can be deployed, and the most slots that a worker has.
const leastSlotBytes = 64
const mostSlots = 1024
const roomForCode = 256 * 1024 * 1024

function driver({ description, runtime, calls, deploy }: Way): Driver {
  return {
    description,
    kind: 'rfaas',
    open: async (options, step) => {
      const { url, workerCores, function: name } = options
      const path = runtime === 'native' ? nativePackages[name] : javascriptModule
      const code = options.firstTime === true ? await unseen(path) : undefined
      const client = await Client.connect(url)
      try {
        const slotBytes = Math.max(leastSlotBytes, options.maxPayloadBytes)
        const slots = Math.min(mostSlots, Math.ceil(options.depth / workerCores.length) + 1)
        const perWorker = roomForCode + 2 * slots * slotBytes
        step('begin')
        const lease = await client.lease({
          cores: workerCores.length,
          memory: workerCores.length * perWorker,
          deploy: {
            path: code?.path ?? path,
            payload: slotBytes,
            output: slotBytes,
            slots,
            provider: options.provider,
            ...deploy,
          },
        })
        step('lease')
        const functions = await watchDeploy(step, () => lease.deploy())
        step('connect')
        const close = async (): Promise<void> => {
          await client.close()
          await code?.remove()
        }
        return { ...calls(functions, name), servers: [], close }
      } catch (error) {
        await client.close()
        await code?.remove()
        throw error
      }
    },
  }
}

/** The parts of a deployment end with the answers to its requests. */
async function watchDeploy<T>(step: Step, deploy: () => Promise<T>): Promise<T> {
  const stop = onAnswer((method, path, status) => {
    if (path.startsWith('/v1/code/')) step('code')
    // A node that lacks the code says so first.
    if (method === 'POST' && path === '/v1/executors') step(status === 404 ? 'code' : 'spawn')
  })
  try {
    return await deploy()
  } finally {
    stop()
  }
}

/** A copy that no node has seen: its hash is another one. Loaders do not mind what is behind the end
 * of a shared library, nor a comment. */
async function unseen(path: string): Promise<{ path: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'rfaas-bench-'))
  const copy = join(folder, `copy${extname(path)}`)
  await copyFile(path, copy)
  await appendFile(copy, `\n// ${folder}\n`)
  return { path: copy, remove: () => rm(folder, { recursive: true }) }
}

function spinning(functions: Functions, name: FunctionName): Calls {
  let input = functions.allocate(8)
  let output = functions.allocate(8)
  let length = 0
  const operation: Operation = {
    kind: 'sync',
    call: () => {
      length = functions.invokeSync(name, input, output)
    },
  }
  return {
    operation,
    use: (payload) => {
      if (payload.byteLength !== input.byteLength) {
        input = functions.allocate(payload.byteLength)
        output = functions.allocate(payload.byteLength)
      }
      input.set(payload)
      output.fill(0)
    },
    result: () => output.subarray(0, length),
  }
}

function awaited(functions: Functions, name: FunctionName): Calls {
  let input = functions.allocate(8)
  const operation: AsyncOperation = {
    kind: 'async',
    call: () => functions.invoke(name, input),
    output: new Uint8Array(0),
  }
  return {
    operation,
    use: (payload) => {
      if (payload.byteLength !== input.byteLength) input = functions.allocate(payload.byteLength)
      input.set(payload)
    },
    result: () => operation.output,
  }
}

function mapped(functions: Functions, name: FunctionName): Calls {
  let input = functions.allocate(8)
  let last: Uint8Array = new Uint8Array(0)
  return {
    operation: {
      kind: 'batch',
      call: async (count, concurrency) => {
        const inputs = new Array<Uint8Array>(count).fill(input)
        last = (await functions.map(name, inputs, { concurrency })).at(-1)!
      },
    },
    use: (payload) => {
      if (payload.byteLength !== input.byteLength) input = functions.allocate(payload.byteLength)
      input.set(payload)
    },
    result: () => last,
  }
}

function inRecords(functions: Functions, name: FunctionName): Calls {
  let payload = new Uint8Array(0)
  // As many records as were ever called at a time.
  let inputs: Uint8Array = payload
  let outputs: Uint8Array = payload
  let last: Uint8Array = payload
  return {
    operation: {
      kind: 'batch',
      call: async (count, concurrency) => {
        const recordBytes = payload.byteLength
        const bytes = count * recordBytes
        if (inputs.byteLength < bytes) {
          inputs = functions.allocate(bytes)
          outputs = functions.allocate(bytes)
          for (let at = 0; at < bytes; at += recordBytes) inputs.set(payload, at)
        }
        const lengths = await functions.mapRecords(
          name,
          inputs.subarray(0, bytes),
          outputs.subarray(0, bytes),
          { inputBytes: recordBytes, outputBytes: recordBytes, concurrency },
        )
        last = outputs.subarray(bytes - recordBytes, bytes - recordBytes + lengths.at(-1)!)
      },
    },
    use: (next) => {
      payload = Uint8Array.from(next)
      inputs = outputs = new Uint8Array(0)
    },
    result: () => last,
  }
}
