// What all servers of peers do.
import { javascriptModule } from '../../functions/functions.js'

export type Functions = Record<string, (input: Uint8Array) => Uint8Array>

export async function loadFunctions(): Promise<Functions> {
  return { ...((await import(javascriptModule)) as Functions) }
}

/** Tells the parent where, and ends when it is gone or has had enough. */
export function serveUntilDisconnect(port: number, close: () => void): void {
  process.on('disconnect', () => {
    close()
    process.exit(0)
  })
  process.send!(port)
}
