// The demo: a cluster of one node on this machine, a lease of its cores, and two real jobs on them.
// Every answer is checked by an independent computation; a wrong one ends the demo with exit code 1.
import { execFile } from 'node:child_process'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Client, type Lease } from '../../lib/index.js'
import { startLocalCluster } from '../../lib/local-cluster.js'
import { duration, integer, paragraph, progress, significant, verdict } from './report.js'
import { loadAlbum, makeThumbnails, measureEcho, priceOptions } from './steps.js'

// This file runs as dist/examples/demo/main.js.
const root = join(import.meta.dirname, '..', '..', '..')
const run = promisify(execFile)
const MiB = 1024 * 1024

// One core stays with this process, which spins as well while it waits for hot calls.
const cores = Math.min(4, Math.max(1, availableParallelism() - 1))

/** What was wrong, over all checks. */
const failures: string[] = []

function conclude(claim: readonly string[], problems: readonly string[]): void {
  verdict(claim, problems)
  failures.push(...problems)
}

async function main(): Promise<void> {
  const start = performance.now()
  await progress('compiling the native packages', () =>
    run(process.execPath, [join(root, 'examples', 'build.mjs')]),
  )
  // Before the cluster starts: nothing else must spin while the floor is measured.
  const floor = await progress('measuring the floor', measureFloor)

  const machine = `${availableParallelism()} × ${cpus()[0]?.model.trim() ?? process.arch}`
  paragraph('rfaas', `one node on this machine, over shared memory (${machine})`)
  const cluster = await progress('starting a cluster', () => startLocalCluster())
  try {
    await using client = await Client.connect(cluster.url)
    const asked = performance.now()
    await using lease = await client.lease({
      cores,
      memory: '512MiB',
      duration: '10m',
    })
    const granted = duration(performance.now() - asked)
    const size = `${cores} ${cores === 1 ? 'core' : 'cores'} and 512 MiB`
    paragraph('lease', `${size} for 10 minutes, granted in ${granted}\n`)

    await echo(lease, floor)
    await thumbnails(lease)
    await options(lease, 1_000_000)

    await progress('releasing the lease', () => lease.release())
    const [usage] = await client.usage()
    const { coreMs = 0, memoryByteMs = 0, cpuMs = 0 } = usage ?? {}
    paragraph(
      'cost',
      `${significant(coreMs / 1000)} core-seconds and ` +
        `${significant(memoryByteMs / 1000 / 1024 ** 3)} GiB-seconds of lease, ` +
        `${significant(cpuMs / 1000)} s of CPU time\n`,
    )
  } finally {
    await cluster.close()
  }

  const elapsed = duration(performance.now() - start)
  if (failures.length > 0) throw new Error(`a check failed: ${failures[0]} (all of them: ✗ above)`)
  paragraph('done', `every answer was right, ${elapsed}`)
}

/** Tiny calls one after the other: what a call costs. */
async function echo(lease: Lease, floor: Floor): Promise<void> {
  const start = performance.now()
  await using functions = await progress('deploying the native package hello', () =>
    lease.deploy(join(root, 'build', 'examples', 'hello.so'), {
      payload: '4KiB',
      output: '4KiB',
      slots: 8,
    }),
  )
  const deployed = duration(performance.now() - start)
  const measured = measureEcho(functions)
  const ratio = significant((measured.p50Ms * 1e6) / floor.p50Ns)
  paragraph(
    'echo',
    `8 bytes to a native function and back, ${integer(measured.samples)} times; ` +
      `deployed in ${deployed}`,
    `round trip   p50 ${duration(measured.p50Ms)}, p99 ${duration(measured.p99Ms)}`,
    `floor (C++)  p50 ${duration(floor.p50Ns / 1e6)}, p99 ${duration(floor.p99Ns / 1e6)}: ` +
      `the median is ${ratio} times that`,
  )
  conclude(['every call brought its own bytes back'], measured.problems)
}

/** A photograph and its quarters through a node package. */
async function thumbnails(lease: Lease): Promise<void> {
  const album = await progress('cutting the photograph into quarters', () =>
    loadAlbum(join(root, 'examples', 'data', 'photo.jpg')),
  )
  await using functions = await progress('deploying the node package thumbnail', () =>
    lease.deploy(join(root, 'examples', 'thumbnail', 'thumbnail.mjs'), {
      payload: '2MiB',
      output: '1MiB',
      slots: 8,
    }),
  )
  const made = await makeThumbnails(functions, album)
  paragraph(
    'thumbnails',
    `${made.calls} thumbnails and previews of ${album.length} photographs of 4 and 16 megapixels ` +
      `in ${duration(made.elapsedMs)} (node, sharp)`,
    `${integer(made.bytesIn / 1024)} KiB of JPEG in, ${integer(made.bytesOut / 1024)} KiB out`,
  )
  const worst = `at worst ${made.worstPsnr.toFixed(1)} dB`
  conclude([`each shows its original, averaged in TypeScript: ${worst}`], made.problems)
}

/** An option set through a native package. */
async function options(lease: Lease, count: number): Promise<void> {
  await using functions = await progress('deploying the native package black-scholes', () =>
    lease.deploy(join(root, 'build', 'examples', 'black-scholes.so'), {
      payload: '1MiB',
      output: '1MiB',
      slots: 8,
    }),
  )
  const priced = await priceOptions(functions, count, MiB)
  paragraph(
    'options',
    `${integer(count)} priced in ${duration(priced.elapsedMs)} (native): ` +
      `${priced.calls} calls of up to 1 MiB, ` +
      `${significant(count / priced.elapsedMs / 1000)} million options a second`,
    `they sum up to ${priced.total.toFixed(4)}, in TypeScript to ${priced.expectedTotal.toFixed(4)}`,
  )
  const worst = Math.max(priced.worstClosedForm, priced.worstParity)
  conclude(
    [
      `all agree with Hart's approximation and put-call parity to ${worst.toExponential(0)} of the spot,`,
      `${integer(priced.integrated)} with numerical integration to ${priced.worstIntegration.toExponential(0)}`,
    ],
    priced.problems,
  )
}

interface Floor {
  readonly p50Ns: number
  readonly p99Ns: number
}

/** A C++ ping-pong over the same provider with the same message size, and nothing else. */
async function measureFloor(): Promise<Floor> {
  const program = join(root, 'build', 'Release', 'rfaas-floor')
  const args = ['--provider', 'shm', '--bytes', '8', '--count', '100000']
  const { stdout } = await run(program, args).catch((cause: unknown) => {
    throw new Error(`${program} failed; has 'npm run build' been run? ${String(cause)}`)
  })
  const { p50Ns, p99Ns } = JSON.parse(stdout) as Record<string, unknown>
  if (typeof p50Ns !== 'number' || typeof p99Ns !== 'number') {
    throw new Error(`${program} printed '${stdout.trim()}'; p50Ns and p99Ns were expected`)
  }
  return { p50Ns, p99Ns }
}

try {
  await main()
} catch (error) {
  const message = error instanceof Error ? error.message : String(error)
  process.stderr.write(`demo: ${message}\n`)
  process.exitCode = 1
}
