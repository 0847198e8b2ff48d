/*
 * An MPI program as there are many: it knows nothing of vcpeer. One implicit step of the heat equation on a square,
 * (I - dt Laplace) u = u0 with insulated edges, solved by conjugate gradients; each rank has a strip of rows and trades
 * its outer rows with its neighbours. u0 is a sum of cosines, so the exact answer of the discrete equation is known, and
 * the answer is checked against it. Before that every two ranks measure the round trip between them.
 */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 512      /* cells along an edge */
#define MODES 16   /* cosines in u0 */
#define DT 2e-5
#define TOLERANCE 1e-10

static int rank, ranks, first, rows; /* this rank has rows first to first+rows-1 */

static double *strip(void) /* with a row of a neighbour above and below */
{
	double *v = calloc((size_t)(rows + 2) * N, sizeof *v);
	if (!v)
		MPI_Abort(MPI_COMM_WORLD, 1);
	return v + N;
}

static double dot(const double *a, const double *b)
{
	double sum = 0, all;
	for (int i = 0; i < rows * N; i++)
		sum += a[i] * b[i];
	MPI_Allreduce(&sum, &all, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
	return all;
}

/* apply sets w = (I - dt Laplace) v, after the outer rows of v were traded. */
static void apply(double *v, double *w)
{
	int above = rank > 0 ? rank - 1 : MPI_PROC_NULL, below = rank < ranks - 1 ? rank + 1 : MPI_PROC_NULL;
	MPI_Sendrecv(v, N, MPI_DOUBLE, above, 1, v + rows * N, N, MPI_DOUBLE, below, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
	MPI_Sendrecv(v + (rows - 1) * N, N, MPI_DOUBLE, below, 2, v - N, N, MPI_DOUBLE, above, 2, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
	for (int r = 0; r < rows; r++)
		for (int c = 0; c < N; c++) {
			double *p = v + r * N + c, flow = 0; /* into the cell, from those that it touches */
			if (first + r > 0)
				flow += p[-N] - *p;
			if (first + r < N - 1)
				flow += p[N] - *p;
			if (c > 0)
				flow += p[-1] - *p;
			if (c < N - 1)
				flow += p[1] - *p;
			w[r * N + c] = *p - DT * N * N * flow;
		}
}

/* wave is cosine number m in cell (r, c), and *factor what the operator multiplies it by. */
static double wave(int m, int r, int c, double *factor)
{
	int p = 7 * (m % 4) + 1, q = 9 * (m / 4);
	double sp = sin(M_PI * p / (2 * N)), sq = sin(M_PI * q / (2 * N));
	*factor = 1 + DT * N * N * 4 * (sp * sp + sq * sq);
	return cos(M_PI * p * (r + 0.5) / N) * cos(M_PI * q * (c + 0.5) / N);
}

static void round_trips(const char *names)
{
	double mine[ranks], all[ranks * ranks];
	memset(mine, 0, sizeof mine);
	for (int a = 0; a < ranks; a++)
		for (int b = a + 1; b < ranks; b++) {
			MPI_Barrier(MPI_COMM_WORLD);
			for (int i = 0; i < 3 && (rank == a || rank == b); i++) {
				char byte = 0;
				double begun = MPI_Wtime();
				if (rank == a)
					MPI_Send(&byte, 1, MPI_CHAR, b, 3, MPI_COMM_WORLD);
				MPI_Recv(&byte, 1, MPI_CHAR, rank == a ? b : a, 3, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
				if (rank == b)
					MPI_Send(&byte, 1, MPI_CHAR, a, 3, MPI_COMM_WORLD);
				double took = 1e3 * (MPI_Wtime() - begun);
				if (rank == a && (i == 0 || took < mine[b]))
					mine[b] = took;
			}
		}
	MPI_Gather(mine, ranks, MPI_DOUBLE, all, ranks, MPI_DOUBLE, 0, MPI_COMM_WORLD);
	if (rank)
		return;
	printf("round trips between ranks, milliseconds:\n%-16s", "");
	for (int b = 1; b < ranks; b++)
		printf(" %11.11s", names + b * MPI_MAX_PROCESSOR_NAME);
	for (int a = 0; a < ranks - 1; a++) {
		printf("\n%-16s", names + a * MPI_MAX_PROCESSOR_NAME);
		for (int b = 1; b < ranks; b++)
			b > a ? printf(" %11.1f", all[a * ranks + b]) : printf(" %11s", "");
	}
	printf("\n");
}

int main(int argc, char **argv)
{
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	first = N * rank / ranks;
	rows = N * (rank + 1) / ranks - first;

	char name[MPI_MAX_PROCESSOR_NAME] = "", names[ranks * MPI_MAX_PROCESSOR_NAME];
	int length;
	MPI_Get_processor_name(name, &length);
	MPI_Gather(name, sizeof name, MPI_CHAR, names, sizeof name, MPI_CHAR, 0, MPI_COMM_WORLD);
	for (int i = 0; !rank && i < ranks; i++)
		printf("rank %d on %s: rows %d to %d\n", i, names + i * MPI_MAX_PROCESSOR_NAME, N * i / ranks, N * (i + 1) / ranks - 1);
	round_trips(names);

	double *u = strip(), *r = strip(), *d = strip(), *w = strip(), *exact = strip();
	for (int y = 0; y < rows; y++)
		for (int x = 0; x < N; x++)
			for (int m = 0; m < MODES; m++) {
				double factor, v = wave(m, first + y, x, &factor);
				r[y * N + x] += v;
				exact[y * N + x] += v / factor;
			}
	memcpy(d, r, sizeof *d * rows * N);
	double begun = MPI_Wtime(), start = dot(r, r), left = start;
	int steps = 0;
	for (; left > TOLERANCE * TOLERANCE * start && steps < 200; steps++) {
		apply(d, w);
		double alpha = left / dot(d, w), next;
		for (int i = 0; i < rows * N; i++) {
			u[i] += alpha * d[i];
			r[i] -= alpha * w[i];
		}
		next = dot(r, r);
		for (int i = 0; i < rows * N; i++)
			d[i] = r[i] + next / left * d[i];
		left = next;
	}
	double worst = 0, error;
	for (int i = 0; i < rows * N; i++)
		worst = fmax(worst, fabs(u[i] - exact[i]));
	MPI_Reduce(&worst, &error, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
	if (!rank) {
		int good = error < 1e-8;
		printf("heat equation, %d x %d cells on %d ranks: %d steps in %.1f s, residual %.1e, error %.1e: %s\n", N, N, ranks,
		       steps, MPI_Wtime() - begun, sqrt(left / start), error, good ? "correct" : "WRONG");
		if (!good)
			MPI_Abort(MPI_COMM_WORLD, 1);
	}
	MPI_Finalize();
	return 0;
}
