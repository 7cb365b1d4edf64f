// `npm run test:slurm`: a real slurmctld, several slurmd, and their jobs, on this machine.
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/slurm/**/*.test.ts'],
    globalSetup: ['test/global-setup.ts'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
