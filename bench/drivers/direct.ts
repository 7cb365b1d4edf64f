// No call at all: the JavaScript function in the client's own process and thread.
import { javascriptModule } from '../functions/functions.js'
import type { Driver } from './driver.js'
import type { Functions } from './servers/server.js'

export const direct: Driver = {
  description: 'the JavaScript function called in the same thread: no isolation, no other core',
  kind: 'peer',
  open: async (options, step) => {
    step('begin')
    const call = ((await import(javascriptModule)) as Functions)[options.function]!
    step('code')
    let input: Uint8Array = new Uint8Array(0)
    let output: Uint8Array = new Uint8Array(0)
    return {
      operation: {
        kind: 'sync',
        call: () => {
          output = call(input)
        },
      },
      use: (payload) => {
        input = payload
      },
      result: () => output,
      servers: [],
      close: () => Promise.resolve(),
    }
  },
}
