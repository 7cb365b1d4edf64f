// Asks a resource manager for leases and reports how long each took, until the parent has had
// enough. A process of its own: on the manager's core it would take its time away.
import { randomUUID } from 'node:crypto'
import { Agent, request } from 'node:http'

/** What the parent says. */
export interface GrantsAsk {
  url: string
  /** Leases that are asked for at a time. */
  concurrency: number
  samples: number
  /** Of each lease, which has one core. */
  memoryBytes: number
}

/** What it is told. */
export interface GrantsAnswer {
  /** Of each grant. */
  timesNs: number[]
  elapsedNs: number
}

const agent = new Agent({ keepAlive: true })

process.on('message', (ask: GrantsAsk) => {
  measure(ask).then(
    (answer) => process.send!(answer),
    (error: unknown) => {
      console.error(error)
      process.exit(1)
    },
  )
})
process.on('disconnect', () => process.exit(0))

async function measure(ask: GrantsAsk): Promise<GrantsAnswer> {
  const { url, concurrency, samples, memoryBytes } = ask
  const target = new URL('/v1/leases', url)
  const timesNs: number[] = []
  let left = samples
  const lane = async (): Promise<void> => {
    while (left-- > 0) {
      const durationMs = 3_600_000
      const lease = { cores: 1, memoryBytes, durationMs, requestId: randomUUID() }
      const start = process.hrtime.bigint()
      await post(target, lease)
      timesNs.push(Number(process.hrtime.bigint() - start))
    }
  }
  const begin = process.hrtime.bigint()
  await Promise.all(Array.from({ length: concurrency }, lane))
  const elapsedNs = Number(process.hrtime.bigint() - begin)
  return { timesNs, elapsedNs }
}

/** Not the client of lib: it would be the slower side, and this is about the manager. */
function post(target: URL, body: unknown): Promise<void> {
  return new Promise((resolve, reject) => {
    const text = JSON.stringify(body)
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(text),
    }
    const sent = request(target, { method: 'POST', agent, headers }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        if (response.statusCode === 201) return resolve()
        const said = Buffer.concat(chunks).toString()
        reject(new Error(`the lease was answered ${response.statusCode}: ${said}`))
      })
    })
    sent.on('error', reject)
    sent.end(text)
  })
}
