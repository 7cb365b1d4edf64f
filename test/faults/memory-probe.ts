// What is alive on a process's JavaScript heap, told apart from what merely was not collected yet. The
// managers get this file by NODE_OPTIONS and answer SIGUSR2 with a file; this process is asked directly.
import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

export interface Live {
  heapBytes: number
  /** Outside of the heap, owned by objects on it: buffers, sockets. */
  externalBytes: number
}

/** Names the folder of the answers. */
export const folderVariable = 'RFAAS_FAULTS_MEMORY'

export const answerFile = (folder: string, pid: number): string => join(folder, `memory-${pid}`)

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

export async function live(): Promise<Live> {
  // What is collected first may be what holds on to more, until its finalizers have run.
  for (let i = 0; i < 3; i += 1) {
    collect()
    await turn()
  }
  const { heapUsed, external } = process.memoryUsage()
  return { heapBytes: heapUsed, externalBytes: external }
}

const folder = process.env[folderVariable]
if (folder !== undefined) {
  process.on('SIGUSR2', () => {
    void live().then((found) => {
      const path = answerFile(folder, process.pid)
      writeFileSync(`${path}.partial`, JSON.stringify(found))
      renameSync(`${path}.partial`, path)
    })
  })
}
