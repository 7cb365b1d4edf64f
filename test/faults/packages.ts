// The packages of functions that go wrong. Compiled once, by the runner.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { packageRoot } from '../../lib/package-root.js'

const sources = join(packageRoot(), 'test/integration/packages')
const built = join(packageRoot(), 'build/test-packages/faults.so')

export const nodePackage = join(sources, 'faults.mjs')

export const nativePackage = (): string => built

export function compileNativePackage(): void {
  const source = join(sources, 'faults.cc')
  if (existsSync(built) && statSync(built).mtimeMs > statSync(source).mtimeMs) return
  mkdirSync(join(packageRoot(), 'build/test-packages'), { recursive: true })
  const include = join(packageRoot(), 'native/include')
  const flags = ['-std=c++20', '-O1', '-shared', '-fPIC', '-I', include]
  // Another run may use it meanwhile.
  const fresh = `${built}.${process.pid}`
  execFileSync(process.env['CXX'] ?? 'c++', [...flags, '-o', fresh, source])
  renameSync(fresh, built)
}
