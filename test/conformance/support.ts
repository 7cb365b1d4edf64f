// The conformance suite has one body; this runs it over every provider.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { networkInterfaces, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, test } from 'vitest'

import {
  openDevice,
  providers,
  RfaasError,
  type AcceptOptions,
  type Access,
  type Completion,
  type CompletionQueue,
  type ConnectOptions,
  type Device,
  type Listener,
  type MemoryRegion,
  type QueuePair,
} from '../../lib/fabric/index.js'

const required = (process.env['RFAAS_REQUIRE'] ?? '').split(',')

/** What may take long because the fabric is emulated. */
export const deadlineMs = required.includes('verbs') ? 60_000 : 10_000

export function conformance(title: string, body: (fabric: TestFabric) => void): void {
  for (const status of providers()) {
    const { name, available } = status
    const usable = available && status.devices.length > 0
    const reason = status.reason ?? 'it has no device'
    if (usable) {
      describe(`${name}: ${title}`, () => {
        const fabric = new TestFabric(name)
        afterEach(() => fabric.clean())
        body(fabric)
      })
    } else if (required.includes(name)) {
      test(`${name}: ${title}`, () => expect.fail(`RFAAS_REQUIRE=${name}, but: ${reason}`))
    } else {
      console.warn(`${name}: ${title}: skipped, ${reason}`)
      describe.skip(`${name}: ${title}`, () => body(new TestFabric(name)))
    }
  }
}

export interface End {
  device: Device
  queue: CompletionQueue
  region: MemoryRegion
  pair: QueuePair
}

export interface Link {
  client: End
  server: End
}

export interface LinkOptions {
  client?: Partial<ConnectOptions>
  server?: Partial<AcceptOptions>
  /** Of both regions. */
  bytes?: number
  access?: Access
}

const all: Access = { remoteWrite: true, remoteRead: true, remoteAtomic: true }

export class TestFabric {
  readonly #clean: (() => void)[] = []

  constructor(readonly provider: string) {}

  get isShm(): boolean {
    return this.provider === 'shm'
  }

  clean(): void {
    for (const act of this.#clean.splice(0).reverse()) act()
  }

  after(act: () => void): void {
    this.#clean.push(act)
  }

  folder(): string {
    const folder = mkdtempSync(join(tmpdir(), 'rfaas-conformance-'))
    this.after(() => rmSync(folder, { recursive: true, force: true }))
    return folder
  }

  open(): Device {
    const device = openDevice({ provider: this.provider })
    this.after(() => device.close())
    return device
  }

  /** Where a listener can be bound. */
  address(): string {
    return this.isShm ? join(this.folder(), 'socket') : `${rdmaHost()}:0`
  }

  listen(device: Device): Listener {
    return device.listen(this.address())
  }

  allocate(device: Device, bytes: number, access = all): MemoryRegion {
    const remoteAtomic = access.remoteAtomic === true && device.info.atomics
    return device.allocate(bytes, { ...access, remoteAtomic })
  }

  /** Two connected queue pairs on two devices of this process. */
  async link(options: LinkOptions = {}): Promise<Link> {
    const [near, far] = [this.open(), this.open()]
    const [nearQueue, farQueue] = [near.createCompletionQueue(256), far.createCompletionQueue(256)]
    const bytes = options.bytes ?? 65536
    const access = options.access ?? all
    const listener = this.listen(far)
    const accept = async () => {
      const request = await listener.next({ timeoutMs: deadlineMs })
      return await request.accept({ completionQueue: farQueue, ...options.server })
    }
    const [nearPair, farPair] = await Promise.all([
      near.connect(listener.address, { completionQueue: nearQueue, ...options.client }),
      accept(),
    ])
    listener.close()
    return {
      client: {
        device: near,
        queue: nearQueue,
        region: this.allocate(near, bytes, access),
        pair: nearPair,
      },
      server: {
        device: far,
        queue: farQueue,
        region: this.allocate(far, bytes, access),
        pair: farPair,
      },
    }
  }

  /** Starts one of peers/ in a process of its own; resolves with its first line of output. */
  async peer(name: string, args: string[] = [], flags: string[] = []): Promise<Peer> {
    const file = fileURLToPath(new URL(`peers/${name}.mjs`, import.meta.url))
    const child = spawn(process.execPath, [...flags, file, this.provider, ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.after(() => void child.kill('SIGKILL'))
    const exited = once(child, 'exit').then(([code, signal]: (number | string | null)[]) => ({
      code,
      signal,
    }))
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const line = async () => {
      const { value, done } = await lines.next()
      if (done === true) throw new Error(`peers/${name}.mjs ended: ${JSON.stringify(await exited)}`)
      return value
    }
    const first = await line()
    // A killed process leaves its socket behind.
    if (this.isShm) this.after(() => rmSync(dirname(first), { recursive: true, force: true }))
    return { child, exited, line, first }
  }
}

export interface Peer {
  child: ChildProcess
  exited: Promise<{ code: unknown; signal: unknown }>
  line: () => Promise<string>
  /** What it printed first: the address where it listens. */
  first: string
}

/** Exactly `count` completions, sleeping for them. */
export async function take(queue: CompletionQueue, count: number): Promise<Completion[]> {
  const taken: Completion[] = []
  while (taken.length < count) taken.push(...(await queue.wait({ timeoutMs: deadlineMs })))
  expect(taken).toHaveLength(count)
  return taken
}

export async function takeOne(queue: CompletionQueue): Promise<Completion> {
  const [completion] = await take(queue, 1)
  if (completion === undefined) throw new Error('unreachable')
  return completion
}

/** The completion of one request, which must be that of a success. */
export async function succeed(queue: CompletionQueue): Promise<Completion> {
  const completion = await takeOne(queue)
  expect(completion.status).toBe('success')
  return completion
}

export async function failure(promise: Promise<unknown>): Promise<RfaasError> {
  try {
    await promise
  } catch (error) {
    expect(error).toBeInstanceOf(RfaasError)
    return error as RfaasError
  }
  return expect.fail('it did not fail')
}

export function thrown(act: () => unknown): RfaasError {
  try {
    act()
  } catch (error) {
    expect(error).toBeInstanceOf(RfaasError)
    return error as RfaasError
  }
  return expect.fail('it did not throw')
}

export function text(value: string): Uint8Array {
  return new TextEncoder().encode(value)
}

export function untext(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes)
}

export function put(region: MemoryRegion, offset: number, value: string): Uint8Array {
  const view = region.bytes(offset, text(value).byteLength)
  view.set(text(value))
  return view
}

export const within = async <T>(promise: Promise<T>, what: string): Promise<T> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${deadlineMs} ms`)), deadlineMs)
  })
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** The address of the network interface beneath the first RDMA device. */
function rdmaHost(): string {
  const name = providers().find(({ name }) => name === 'verbs')?.devices[0]?.name ?? ''
  const file = `/sys/class/infiniband/${name}/ports/1/gid_attrs/ndevs/0`
  const addresses = existsSync(file)
    ? (networkInterfaces()[readFileSync(file, 'utf8').trim()] ?? [])
    : []
  const address = addresses.find(({ family }) => family === 'IPv4') ?? addresses[0]
  if (address === undefined) throw new Error(`no IP address belongs to the RDMA device "${name}"`)
  return address.family === 'IPv4' ? address.address : `[${address.address}]`
}
