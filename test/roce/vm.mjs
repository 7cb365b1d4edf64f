// One boot of the virtual machine: QEMU as a child process, its console in a file, the command's
// output and the guest's marks on QEMU's standard output.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'

/**
 * @typedef {object} Boot
 * @property {string} kernel
 * @property {string} initramfs
 * @property {string} append the kernel command line
 * @property {string} consoleLog file that QEMU writes the serial console to
 * @property {string} nonce tells the guest's marks from the command's output
 * @property {string | undefined} output host folder of the writable share
 * @property {(bytes: Buffer) => void} onOutput
 * @property {() => void} onReady
 */

/**
 * How a boot ended. `exit`: the command ended with `code`. `stopped`: `stop(reason)` was called.
 * `ended`: QEMU ended by itself, which it only does when the guest failed.
 * @typedef {{ kind: 'exit', code: number } | { kind: 'stopped', reason: string }
 *   | { kind: 'ended', detail: string }} Outcome
 */

/** QEMU's option syntax separates with commas; a comma in a value is doubled. @param {string} path */
const value = (path) => path.replaceAll(',', ',,')

/**
 * @param {'kvm' | 'tcg'} accelerator
 * @param {Boot} boot
 */
function qemuArguments(accelerator, boot) {
  const share = (
    /** @type {string} */ id,
    /** @type {string} */ path,
    /** @type {string} */ more,
  ) => [
    ...['-fsdev', `local,id=${id},path=${value(path)},security_model=none,multidevs=remap${more}`],
    ...['-device', `virtio-9p-pci,fsdev=${id},mount_tag=${id}`],
  ]
  return [
    ...['-accel', accelerator === 'kvm' ? 'kvm' : 'tcg,thread=multi'],
    // Emulated page walks cost by the level: without five-level tables programs run a tenth faster.
    ...['-cpu', accelerator === 'kvm' ? 'host' : 'max,la57=off'],
    // rxe loses completions when many busy queue pairs share one CPU.
    ...['-smp', '2', '-m', '3072'],
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ...['-kernel', boot.kernel, '-initrd', boot.initramfs, '-append', boot.append],
    ...share('host', '/', ',readonly=on'),
    ...(boot.output === undefined ? [] : share('output', boot.output, '')),
    // A hub with two interfaces of the guest. rxe hands packets for its own address back to itself; the
    // second interface is for tests that need a wire which can be cut.
    ...['net', 'wire'].flatMap((id) => [
      ...['-netdev', `hubport,id=${id},hubid=0`],
      ...['-device', `virtio-net-pci,netdev=${id},romfile=`],
    ]),
    ...['-device', 'virtio-rng-pci'],
    ...['-chardev', 'stdio,id=output,signal=off', '-device', 'virtio-serial-pci'],
    ...['-device', 'virtserialport,chardev=output,name=rfaas'],
    ...['-chardev', `file,id=console,path=${value(boot.consoleLog)}`, '-serial', 'chardev:console'],
  ]
}

/** Splits QEMU's standard output into the command's output and the guest's marks. */
class MarkReader {
  #prefix
  #held = Buffer.alloc(0)
  #onOutput
  #onMark

  /**
   * @param {string} nonce
   * @param {(bytes: Buffer) => void} onOutput
   * @param {(mark: string) => void} onMark
   */
  constructor(nonce, onOutput, onMark) {
    this.#prefix = Buffer.from(`\x1e${nonce} `)
    this.#onOutput = onOutput
    this.#onMark = onMark
  }

  /** @param {Buffer} bytes */
  push(bytes) {
    let rest = Buffer.concat([this.#held, bytes])
    for (;;) {
      const start = this.#markStart(rest)
      if (start > 0) this.#onOutput(rest.subarray(0, start))
      rest = rest.subarray(start)
      const end = rest.indexOf('\n')
      if (rest.length <= this.#prefix.length || end < 0) break
      this.#onMark(rest.toString('utf8', this.#prefix.length, end))
      rest = rest.subarray(end + 1)
    }
    this.#held = rest
  }

  /** Where a mark, or the beginning of what may become one, starts; else the length. @param {Buffer} bytes */
  #markStart(bytes) {
    for (let at = bytes.indexOf(0x1e); at >= 0; at = bytes.indexOf(0x1e, at + 1)) {
      const length = Math.min(this.#prefix.length, bytes.length - at)
      if (bytes.compare(this.#prefix, 0, length, at, at + length) === 0) return at
    }
    return bytes.length
  }
}

export class Vm {
  #child
  /** @type {Outcome | undefined} */
  #outcome
  #consoleLog
  #failure = ''

  /** @type {Promise<Outcome>} settles when QEMU is gone */
  finished

  /**
   * @param {'kvm' | 'tcg'} accelerator
   * @param {Boot} boot
   */
  constructor(accelerator, boot) {
    this.#consoleLog = boot.consoleLog
    // The parent-death signal takes QEMU along even if this process is killed outright.
    this.#child = spawn(
      'setpriv',
      ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...qemuArguments(accelerator, boot)],
      // A group of its own: Ctrl-C reaches QEMU through us, so that we say how it ended.
      { stdio: ['pipe', 'pipe', 'pipe'], detached: true },
    )
    const marks = new MarkReader(boot.nonce, boot.onOutput, (mark) => {
      if (mark === 'ready') return boot.onReady()
      const code = /^exit (\d+)$/.exec(mark)?.[1]
      this.#end(
        code === undefined
          ? { kind: 'ended', detail: `the guest sent an unknown mark: ${mark}` }
          : { kind: 'exit', code: Number(code) },
      )
    })
    this.#child.stdout.on('data', (bytes) => marks.push(bytes))
    this.#child.stderr.on('data', (bytes) => (this.#failure += bytes))
    this.finished = new Promise((resolve) => {
      this.#child.on('error', (error) => resolve({ kind: 'ended', detail: error.message }))
      this.#child.on('close', (code, signal) => {
        const detail = `QEMU ended with ${signal ?? `exit code ${code}`} ${this.#failure}`.trim()
        resolve(this.#outcome ?? { kind: 'ended', detail })
      })
    })
  }

  /** @param {Outcome} outcome */
  #end(outcome) {
    this.#outcome ??= outcome
    // There is nothing in the machine to save, and results are already in the host's files.
    this.#child.kill('SIGKILL')
  }

  /** Ends the machine; harmless when it has ended. @param {string} reason */
  stop(reason) {
    this.#end({ kind: 'stopped', reason })
  }

  /** @returns {string[]} what the guest's kernel and its init have said so far */
  consoleLines() {
    try {
      return readFileSync(this.#consoleLog, 'utf8').split(/\r?\n/)
    } catch {
      return []
    }
  }
}
