// What the virtual machine boots: a distribution kernel that is never installed on the host, and an
// initramfs with the modules Soft-RoCE needs. Both are made once and kept in a cache folder.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const kHere = dirname(fileURLToPath(import.meta.url))

/** The meta package whose dependency names the current kernel. */
const kKernelMetaPackage = 'linux-image-amd64'

/** Everything on the host that the machine or the code running in it needs. */
const kPackages = [
  'qemu-system-x86',
  'busybox-static',
  'kmod',
  'cpio',
  'xz-utils',
  'iproute2',
  'ibverbs-providers',
  'libibverbs-dev',
  'librdmacm-dev',
]

// rdma_rxe does not depend on a crc32 provider by symbol, so modprobe would not bring one, and adding
// a device then fails with nothing but "failed to add eth0". veth, bridge and overlay are there for
// tests that build networks and sandboxes.
const kModules = [
  ...['virtio_pci', 'virtio_console', 'virtio_rng', 'virtio_net'],
  ...['9p', '9pnet_virtio', 'overlay'],
  ...['crc32_generic', 'crc32-pclmul', 'rdma_rxe', 'rdma_ucm'],
  ...['veth', 'bridge'],
]

/** A failure of the harness or its host, told to the user without a stack. */
export class HarnessError extends Error {}

/**
 * @param {string} command
 * @param {string[]} args
 * @param {{ cwd?: string, input?: string | Buffer }} [options]
 * @returns {Buffer} what the command wrote to its standard output
 */
function run(command, args, options = {}) {
  // An ordinary user's PATH lacks the folders where modprobe and depmod live.
  const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH}:/usr/sbin:/sbin` }
  const done = spawnSync(command, args, { ...options, env, maxBuffer: 2 ** 30 })
  if (done.error) throw new HarnessError(`cannot run ${command}: ${done.error.message}`)
  if (done.status !== 0) {
    const ended = done.signal ?? `exit code ${done.status}`
    throw new HarnessError(`${command} ${args.join(' ')}: ${ended}\n${String(done.stderr).trim()}`)
  }
  return done.stdout
}

/** Throws with the command that installs what is missing. */
function requirePackages() {
  if (process.arch !== 'x64' || !existsSync('/usr/bin/dpkg-query')) {
    throw new HarnessError(
      `the Soft-RoCE machine needs Debian on x86-64 (this is ${process.platform} ${process.arch}); ` +
        'on other hosts, give the host itself a device: rdma link add rxe0 type rxe netdev <interface>',
    )
  }
  // dpkg-query fails when it knows nothing of a package; what it does know it still prints.
  const query = spawnSync('dpkg-query', ['-W', '-f=${Package} ${db:Status-Status}\n', ...kPackages])
  const known = String(query.stdout).split('\n')
  const missing = kPackages.filter((name) => !known.includes(`${name} installed`))
  if (missing.length > 0) {
    throw new HarnessError(
      `packages are missing: ${missing.join(', ')}\n` +
        `install them with: apt-get install -y --no-install-recommends ${missing.join(' ')}`,
    )
  }
}

/** @returns {string} the package that holds the current kernel and its modules */
function kernelPackage() {
  const text = String(run('apt-cache', ['depends', '--important', kKernelMetaPackage]))
  const name = /^ +(?:Pre)?Depends: (linux-image-\S+)/m.exec(text)?.[1]
  if (name === undefined) {
    throw new HarnessError(
      `apt-cache names no kernel for ${kKernelMetaPackage}: run apt-get update`,
    )
  }
  return name
}

/**
 * The uncompressed kernel inside a bzImage. QEMU starts it directly (PVH); unpacking it inside the
 * guest instead costs four seconds of every emulated boot.
 * @param {Buffer} image
 */
function uncompressedKernel(image) {
  // Offsets as in Documentation/x86/boot.rst of the kernel.
  const setupSectors = image.readUInt8(0x1f1) || 4
  const start = (setupSectors + 1) * 512 + image.readUInt32LE(0x248)
  const payload = image.subarray(start, start + image.readUInt32LE(0x24c))
  // The payload ends with its length, which is no part of the xz stream.
  const kernel = run('xz', ['-dc', '--single-stream'], { input: payload })
  if (kernel.toString('latin1', 0, 4) !== '\x7fELF') throw new HarnessError('not an ELF kernel')
  return kernel
}

/**
 * Makes the folder `target` with `fill`, visible to others only when it is complete.
 * @param {string} target
 * @param {(folder: string) => void} fill
 */
function makeFolder(target, fill) {
  if (existsSync(target)) return
  mkdirSync(dirname(target), { recursive: true })
  const partial = mkdtempSync(`${target}.partial-`)
  try {
    fill(partial)
    renameSync(partial, target)
  } catch (error) {
    rmSync(partial, { recursive: true, force: true })
    // Somebody else was faster: a rename does not replace a folder that has content.
    if (!existsSync(target)) throw error
  }
}

/**
 * Downloads and unpacks the kernel, keeps `vmlinux` and, in loading order, `modules/NN-name.ko`.
 * @param {string} packageName
 * @param {string} target
 */
function makeKernel(packageName, target) {
  const work = mkdtempSync(join(tmpdir(), 'rfaas-kernel-'))
  try {
    // Root's apt otherwise complains that its sandbox user cannot enter this folder.
    const asRoot = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : []
    run('apt-get', [...asRoot, 'download', packageName], { cwd: work })
    run('sh', ['-c', 'dpkg -x ./*.deb root'], { cwd: work })
    const root = join(work, 'root')
    const version = packageName.replace('linux-image-', '')
    run('depmod', ['-b', root, version])
    const paths = new Set()
    for (const module of kModules) {
      const lines = run('modprobe', ['-d', root, '-S', version, '--show-depends', module])
      for (const [, path] of String(lines).matchAll(/^insmod (\S+)/gm)) paths.add(path)
    }
    makeFolder(target, (folder) => {
      const image = readFileSync(join(root, 'boot', `vmlinuz-${version}`))
      writeFileSync(join(folder, 'vmlinux'), uncompressedKernel(image))
      mkdirSync(join(folder, 'modules'))
      let position = 0
      for (const path of paths) {
        const name = `${String(position++).padStart(2, '0')}-${basename(path)}`
        if (!name.endsWith('.ko')) throw new HarnessError(`the guest cannot load ${name}`)
        copyFileSync(path, join(folder, 'modules', name))
      }
    })
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/**
 * Left uncompressed: QEMU places it in memory as it is, and the guest has nothing to unpack.
 * @param {string} modules
 * @param {string} target
 */
function makeInitramfs(modules, target) {
  makeFolder(target, (folder) => {
    const root = join(folder, 'root')
    for (const name of ['bin', 'host', 'tree', 'scratch']) {
      mkdirSync(join(root, name), { recursive: true })
    }
    copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
    symlinkSync('busybox', join(root, 'bin/sh'))
    copyFileSync(join(kHere, 'init.sh'), join(root, 'init'))
    chmodSync(join(root, 'init'), 0o755)
    run('cp', ['-r', modules, join(root, 'modules')])
    const pack = 'find . | cpio --quiet -o -H newc -R 0:0 > ../initramfs.cpio'
    run('sh', ['-c', pack], { cwd: root })
    rmSync(root, { recursive: true })
  })
}

/** @param {...(string | Buffer)} parts */
function digest(...parts) {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part).update('\0')
  return hash.digest('hex').slice(0, 12)
}

/** @returns {string} the folder for what is made once */
export function cacheFolder() {
  const base = process.env.XDG_CACHE_HOME || join(homedir(), '.cache')
  return process.env.RFAAS_ROCE_CACHE || join(base, 'rfaas', 'roce')
}

/**
 * Checks the host and makes what is not in the cache yet.
 * @param {(message: string) => void} say
 * @returns {{ kernel: string, initramfs: string }}
 */
export function prepareBoot(say) {
  requirePackages()
  const packageName = kernelPackage()
  const recipe = readFileSync(fileURLToPath(import.meta.url))
  const kernelFolder = join(cacheFolder(), `${packageName}-${digest(...kModules)}`)
  if (!existsSync(kernelFolder)) {
    say(`downloading ${packageName} and unpacking it into ${kernelFolder}`)
    makeKernel(packageName, kernelFolder)
  }
  const init = readFileSync(join(kHere, 'init.sh'))
  const initramfs = join(kernelFolder, `initramfs-${digest(init, recipe)}`)
  makeInitramfs(join(kernelFolder, 'modules'), initramfs)
  return { kernel: join(kernelFolder, 'vmlinux'), initramfs: join(initramfs, 'initramfs.cpio') }
}
