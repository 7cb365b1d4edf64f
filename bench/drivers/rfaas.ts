// rfaas itself: a lease of one core and the echo function of the hello package.
import { join } from 'node:path'

import { Client, type DeployOptions, type Functions } from '../../lib/index.js'
import { root } from '../machine.js'
import type { Operation } from '../timing.js'
import type { Driver, DriverOptions, Session } from './driver.js'

const native = join(root, 'build', 'examples', 'hello.so')
const javascript = join(root, 'examples', 'hello', 'hello.mjs')

export const invokeSync: Driver = {
  description: 'invokeSync of a native function, hot, registered memory',
  open: (options) => open(options, native, {}, spinning),
}

export const invoke: Driver = {
  description: 'awaited invoke of a native function, hot',
  open: (options) => open(options, native, {}, awaited),
}

export const warm: Driver = {
  description: 'awaited invoke of a native function, both sides sleep in between',
  open: (options) => open(options, native, { hotTimeout: 0, hotWait: 0 }, awaited),
}

export const nodeFunction: Driver = {
  description: 'invokeSync of a JavaScript function, hot, registered memory',
  open: (options) => open(options, javascript, {}, spinning),
}

// The smallest slot that can be deployed.
const leastSlotBytes = 64

type Calls = Omit<Session, 'close'>

async function open(
  options: DriverOptions,
  path: string,
  deploy: DeployOptions,
  calls: (functions: Functions) => Calls,
): Promise<Session> {
  const client = await Client.connect(options.url)
  try {
    const lease = await client.lease({ cores: 1, memory: '256MiB' })
    const bytes = Math.max(leastSlotBytes, options.maxPayloadBytes)
    const functions = await lease.deploy(path, {
      payload: bytes,
      output: bytes,
      provider: options.provider,
      ...deploy,
    })
    return { ...calls(functions), close: () => client.close() }
  } catch (error) {
    await client.close()
    throw error
  }
}

function spinning(functions: Functions): Calls {
  let input = functions.allocate(8)
  let output = functions.allocate(8)
  const operation: Operation = {
    kind: 'sync',
    call: () => {
      functions.invokeSync('echo', input, output)
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
    result: () => output,
  }
}

function awaited(functions: Functions): Calls {
  let input = functions.allocate(8)
  let output: Uint8Array = new Uint8Array(0)
  const operation: Operation = {
    kind: 'async',
    call: async () => {
      output = await functions.invoke('echo', input)
    },
  }
  return {
    operation,
    use: (payload) => {
      if (payload.byteLength !== input.byteLength) input = functions.allocate(payload.byteLength)
      input.set(payload)
    },
    result: () => output,
  }
}
