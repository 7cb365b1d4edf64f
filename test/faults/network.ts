// Hosts as network namespaces on one bridge. The scenario's process has a namespace of its own (run.ts)
// and is the client's host; the bridge is there, so the machine's own network is never involved. The
// hosts' addresses are of the net that is the loopback's elsewhere: managers that listen on them need
// neither keys nor certificates, of which other tests know more.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'

const bridge = 'br0'
// Nobody's: frames to it reach no host, and nobody is told, as when a switch fails.
const nowhere = '02:00:00:00:00:fe'

interface Host {
  address: string
  /** The process that keeps the namespace. */
  keeper: ChildProcess | undefined
  device: string
}

export class Network {
  readonly #hosts = new Map<string, Host>()

  /** `names` of the hosts besides 'client'. */
  static async start(names: readonly string[]): Promise<Network> {
    const network = new Network()
    network.#hosts.set('client', { address: '127.7.0.1', keeper: undefined, device: bridge })
    network.#prepare('client')
    ip('link', 'add', bridge, 'type', 'bridge')
    ip('addr', 'add', '127.7.0.1/24', 'dev', bridge)
    ip('link', 'set', bridge, 'up')
    for (const [index, name] of names.entries()) {
      await network.#addHost(name, `127.7.0.${index + 2}`, `port${index}`)
    }
    return network
  }

  address(name: string): string {
    return this.#host(name).address
  }

  /** What stands before a command that runs on the host. */
  on(name: string): string[] {
    const { keeper } = this.#host(name)
    return keeper === undefined ? [] : ['nsenter', `--net=/proc/${keeper.pid}/ns/net`, '--']
  }

  /** From now on neither hears anything of the other. */
  cut(one: string, other: string): void {
    for (const [from, to] of bothWays(one, other)) {
      const { device } = this.#host(from)
      const lost = ['lladdr', nowhere, 'dev', device, 'nud', 'permanent']
      this.#ip(from, 'neigh', 'replace', this.address(to), ...lost)
    }
  }

  heal(one: string, other: string): void {
    for (const [from, to] of bothWays(one, other)) {
      this.#ip(from, 'neigh', 'del', this.address(to), 'dev', this.#host(from).device)
    }
  }

  async #addHost(name: string, address: string, port: string): Promise<void> {
    const keeper = spawn('unshare', ['--net', 'sh', '-c', 'echo; exec sleep infinity'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(keeper.stdout, 'data')
    this.#hosts.set(name, { address, keeper, device: 'eth0' })
    const peer = ['peer', 'name', 'eth0', 'netns', String(keeper.pid)]
    ip('link', 'add', port, 'type', 'veth', ...peer)
    ip('link', 'set', port, 'master', bridge, 'up')
    this.#prepare(name)
    this.#ip(name, 'addr', 'add', `${address}/24`, 'dev', 'eth0')
    this.#ip(name, 'link', 'set', 'eth0', 'up')
  }

  /** Its loopback has one address, not the whole net, and packets of the net may come from outside. */
  #prepare(name: string): void {
    this.#ip(name, 'link', 'set', 'lo', 'up')
    this.#ip(name, 'addr', 'add', '127.0.0.1/32', 'dev', 'lo')
    this.#ip(name, 'addr', 'del', '127.0.0.1/8', 'dev', 'lo')
    const setting = '/proc/sys/net/ipv4/conf/all/route_localnet'
    this.#run(name, 'sh', '-c', `echo 1 > ${setting}`)
  }

  #host(name: string): Host {
    const host = this.#hosts.get(name)
    if (host === undefined) throw new Error(`there is no host ${name}`)
    return host
  }

  #ip(name: string, ...args: string[]): void {
    this.#run(name, 'ip', ...args)
  }

  #run(name: string, ...words: string[]): void {
    const [command = '', ...args] = [...this.on(name), ...words]
    execFileSync(command, args)
  }
}

const bothWays = (a: string, b: string): [string, string][] => [
  [a, b],
  [b, a],
]

function ip(...args: string[]): void {
  execFileSync('ip', args)
}
