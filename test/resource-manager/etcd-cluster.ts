// A real etcd of one or several members, each a process of its own on loopback.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Transport } from '../../lib/control/transport.js'
import { Etcd } from '../../resource-manager/stores/etcd-client.js'
import { freePorts } from '../free-ports.js'

const program = '/usr/bin/etcd'
const startWithinMs = 20_000

/** Why there can be none on this host. */
export const lackOfEtcd = existsSync(program) ? undefined : 'needs the Debian package etcd-server'
if (lackOfEtcd !== undefined) console.warn(`tests on etcd: skipped, ${lackOfEtcd}`)

export interface EtcdOptions {
  members?: number
  /** Skip fsync: for tests in which etcd is not struck down. */
  hasty?: boolean
  /** How large its database may be. Default: etcd's. */
  quotaBytes?: number
  /** Clients come over TLS and show a certificate of the authority. */
  tls?: { cert: string; key: string; ca: string }
  /** Where their data is. Default: a folder for temporary files. */
  folder?: string
  /** Where the members are, and what stands before the command to run there. Default: here. */
  host?: string
  wrap?: readonly string[]
}

interface Member {
  url: string
  wrap: readonly string[]
  args: string[]
  child: ChildProcess | undefined
}

export class EtcdCluster {
  readonly #folder: string
  readonly #members: Member[]
  readonly #transport: Transport

  private constructor(folder: string, members: Member[], tls: EtcdOptions['tls']) {
    this.#folder = folder
    this.#members = members
    this.#transport = new Transport(tls)
  }

  static async start(options: EtcdOptions = {}): Promise<EtcdCluster> {
    const { members = 1, hasty = false, host = '127.0.0.1', wrap = [], tls, quotaBytes } = options
    const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'rfaas-etcd-'))
    const ports = await freePorts(2 * members)
    const places = Array.from({ length: members }, (_, index) => ({
      name: `member-${index + 1}`,
      url: `${tls === undefined ? 'http' : 'https'}://${host}:${ports[2 * index]}`,
      peer: `http://${host}:${ports[2 * index + 1]}`,
    }))
    const all = places.map(({ name, peer }) => `${name}=${peer}`).join()
    const cluster = new EtcdCluster(
      folder,
      places.map(({ name, url, peer }) => ({
        url,
        wrap,
        child: undefined,
        args: [
          ...['--name', name, '--data-dir', join(folder, name), '--initial-cluster', all],
          ...['--listen-client-urls', url, '--advertise-client-urls', url],
          ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
          ...['--logger', 'zap', '--log-level', 'error'],
          ...(tls === undefined
            ? []
            : [
                ...['--cert-file', tls.cert, '--key-file', tls.key],
                ...['--trusted-ca-file', tls.ca, '--client-cert-auth'],
              ]),
          ...(hasty ? ['--unsafe-no-fsync'] : []),
          ...(quotaBytes === undefined ? [] : ['--quota-backend-bytes', `${quotaBytes}`]),
        ],
      })),
      tls,
    )
    for (const member of cluster.#members) cluster.#launch(member)
    await cluster.#healthy()
    return cluster
  }

  get urls(): string[] {
    return this.#members.map(({ url }) => url)
  }

  client(): Etcd {
    return new Etcd(this.urls, this.#transport)
  }

  /** Of a member, counted from 0. */
  pid(index: number): number {
    return this.#members[index]!.child?.pid ?? 0
  }

  /** Which member leads etcd itself. */
  async leader(): Promise<number> {
    const answers = await Promise.all(
      this.urls.map(async (url) => {
        const answer = await fetch(`${url}/v3/maintenance/status`, { method: 'POST', body: '{}' })
        return (await answer.json()) as { header: { member_id: string }; leader: string }
      }),
    )
    return answers.findIndex(({ header, leader }) => header.member_id === leader)
  }

  async kill(index: number, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const { child } = this.#members[index]!
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    child.kill(signal)
    if (signal === 'SIGKILL' || signal === 'SIGTERM') await once(child, 'exit')
  }

  /** One that was killed, with what it has on disk. */
  async restart(index: number): Promise<void> {
    this.#launch(this.#members[index]!)
    await this.#healthy()
  }

  async stop(): Promise<void> {
    await Promise.all(this.#members.map((_member, index) => this.kill(index)))
    rmSync(this.#folder, { recursive: true, force: true })
  }

  #launch(member: Member): void {
    const [command = '', ...args] = [...member.wrap, program, ...member.args]
    member.child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  }

  async #healthy(): Promise<void> {
    const etcd = this.client()
    const deadline = performance.now() + startWithinMs
    for (;;) {
      const status = await etcd.status()
      const problem = status.find((member) => member.problem !== undefined)
      if (problem === undefined) return
      if (performance.now() > deadline) throw new Error(`${problem.url}: ${problem.problem}`)
      await sleep(50)
    }
  }
}
